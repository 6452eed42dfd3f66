"""An uncaught exception is a bug of ours, unless memory ran out."""

import pytest
from starlette.types import Receive, Scope, Send

from tests.client import behind_front


@pytest.mark.parametrize(("error", "status"), [(MemoryError, 413), (RuntimeError, 500)])
def test_memory_that_is_not_there_is_no_bug(error: type[Exception], status: int) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    answer = behind_front(broken).post("/v1/losses/mse", json={})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
