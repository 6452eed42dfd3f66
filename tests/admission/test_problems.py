"""An uncaught exception is a bug of ours, unless memory ran out."""

import pytest
import torch
from starlette.types import Receive, Scope, Send

from service.admission.account import Account
from service.admission.context import RequestContext
from service.engine.lane import Lane
from service.engine.queue import Queue
from service.telemetry.recorder import Recorder
from tests.client import Client


@pytest.mark.parametrize(("error", "status"), [(MemoryError, 413), (RuntimeError, 500)])
def test_memory_that_is_not_there_is_no_bug(error: type[Exception], status: int) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    account = Account(1)
    recorder = Recorder(Queue(torch.device("cpu"), Lane("test", 1), capacity=1, max_work=1), lambda: 0, None)
    answer = Client(RequestContext(broken, account, recorder)).post("/v1/losses/mse", json={})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
