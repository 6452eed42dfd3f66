"""The gate refuses work that the server cannot take, and nothing else."""

from collections.abc import Generator

import pytest
import torch
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission.account import Account
from service.admission.gate import Gate
from service.admission.lifecycle import Lifecycle
from service.doors.front import Front
from service.engine.lane import Lane
from service.engine.queue import Queue
from service.problems import Busy, Unavailable
from service.routes import match_route
from service.telemetry.finished import Finished
from service.telemetry.metrics import Metrics
from service.telemetry.recorder import Recorder
from tests.client import Client

WORK, LOOK = "/v1/losses/mse", "/v1/losses"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("passed")(scope, receive, send)


@pytest.fixture
def gate() -> Generator[Gate]:
    lane = Lane("test", 1)
    queue = Queue(torch.device("cpu"), lane, max_work=1)
    account = Account(1, capacity=1)
    lifecycle = Lifecycle(account)
    lifecycle.warm = True
    yield Gate(account, lifecycle, Recorder(queue, lambda: 0, Metrics(), None))
    lane.close()


def client(gate: Gate, app: ASGIApp = application) -> Client:
    return Client(Front(app, {}, application, gate))


def refusal(gate: Gate, path: str = WORK) -> type | None:
    """Return what is said before there is a request."""
    problem = gate.refusal(match_route("POST", path).route)
    return problem and type(problem)


def test_what_there_is_room_for_passes_and_is_waited_for_until_its_end(gate: Gate) -> None:
    seen: list[int] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(gate.account.active)
        await application(scope, receive, send)

    assert client(gate, look).post(WORK).text == client(gate, look).get(LOOK).text == "passed"
    # a look at the catalogue is no work
    assert seen == [1, 0]
    assert (gate.closed, refusal(gate), gate.account.active) == (False, None, 0)


@pytest.mark.parametrize("end", ["draining", "failed"])
def test_a_server_that_ends_refuses_work_and_the_connection(gate: Gate, end: str) -> None:
    setattr(gate.lifecycle, end, True)
    answer = client(gate).post(WORK)
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert client(gate).get(LOOK).text == "passed"
    assert (gate.closed, refusal(gate), refusal(gate, "/nothing")) == (True, Unavailable, None)


def test_a_full_queue_refuses_work_until_there_is_room(gate: Gate) -> None:
    hold = gate.account.open()
    hold.accept()
    answer = client(gate).post(WORK)
    assert answer.status_code == 429
    assert "connection" not in answer.headers
    assert client(gate).get(LOOK).text == "passed"
    assert (gate.closed, refusal(gate), refusal(gate, "/nothing")) == (True, Busy, None)
    hold.leave()
    assert client(gate).post(WORK).text == "passed"
    assert (gate.closed, refusal(gate)) == (False, None)


def test_what_was_refused_before_there_was_a_request_is_recorded(gate: Gate) -> None:
    recorded: list[Finished] = []
    gate.recorder.add = recorded.append  # type: ignore[method-assign]
    route = match_route("POST", WORK).route
    gate.note("POST", WORK, route, Busy("queue", "1 request", 1), "queue", "abc")
    [finished] = recorded
    assert (finished.route, finished.status, finished.rejected) == (route, 429, "queue")
    assert (finished.method, finished.path, finished.stages.request_id) == ("POST", WORK.encode(), "abc")
    assert (finished.seconds, finished.bytes_in, finished.bytes_out) == (0, 0, 0)
