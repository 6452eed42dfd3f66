"""The internals of uvicorn and httptools that ``service/serving`` uses, checked against the installed versions."""

import inspect
import threading
from typing import Any

import httptools
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import import_from_string
from uvicorn.server import ServerState
from uvicorn.supervisors.multiprocess import Multiprocess, Process

MADE = ["config", "server_state", "app_state", "_loop"]


async def application(scope: Scope, receive: Receive, send: Send) -> None: ...


def loaded() -> uvicorn.Config:
    config = uvicorn.Config(lambda: application, factory=True, timeout_keep_alive=3, log_config=None)
    config.load()
    return config


def test_a_server_makes_a_connection_with_these_arguments() -> None:
    own = import_from_string("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol")
    assert list(inspect.signature(own).parameters) == MADE
    source = inspect.getsource(uvicorn.Server.startup)
    assert "config.http_protocol_class(" in source
    assert all(f"{name}=" in source for name in MADE)


def test_a_configuration_has_the_application_that_its_factory_makes() -> None:
    config = loaded()
    assert vars(config)["loaded_app"] is not application
    assert config.timeout_keep_alive == 3
    assert config.workers == 1


def test_the_state_of_a_server_is_what_connections_share() -> None:
    state = ServerState()
    assert (state.connections, state.tasks, state.default_headers) == (set(), set(), [])


def test_a_server_ends_its_connections_and_waits_for_them_and_for_tasks() -> None:
    source = inspect.getsource(uvicorn.Server)
    for used in (
        "for connection in list(self.server_state.connections):\n            connection.shutdown()",
        "while self.server_state.connections and not self.force_exit",
        "while self.server_state.tasks and not self.force_exit",
        "timeout=self.config.timeout_graceful_shutdown",
        "self.server_state.default_headers = ",
    ):
        assert used in source


def test_a_supervisor_watches_its_workers_with_methods_that_can_be_replaced() -> None:
    workers = Multiprocess(loaded(), [])
    assert isinstance(workers.should_exit, threading.Event)
    assert (workers.processes, workers.signal_queue, workers.sockets) == ([], [], [])
    source = inspect.getsource(Multiprocess.run)
    assert "self.keep_subprocess_alive()" in source
    assert "self.join_all()" in source


def test_a_worker_answers_a_ping_on_its_pipe() -> None:
    worker = Process(loaded(), [])
    threading.Thread(target=worker.pong).start()
    worker.parent_conn.send(b"ping")
    assert worker.parent_conn.poll(10)
    assert worker.parent_conn.recv() is False
    assert (worker.process.is_alive(), worker.pid, worker.exitcode) == (False, None, None)
    assert STARTUP_FAILURE == 3
    assert all(callable(method) for method in (worker.start, worker.kill, worker.join))


class Heard:
    """Records the callbacks of httptools, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *values: self.calls.append((name, values))


def test_httptools_stops_behind_the_head_of_a_request_that_offers_an_upgrade() -> None:
    """It then takes the request for one without a body: our workaround can go once this fails."""
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    head = b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\n"
    stopped = None
    try:
        parser.feed_data(memoryview(head + b"abc"))
    except httptools.HttpParserUpgrade as error:
        stopped = error.args[0]
    assert stopped == len(head)
    assert parser.should_upgrade()
    assert (parser.get_method(), parser.get_http_version()) == (b"POST", "1.1")
    assert [name for name, _ in heard.calls][-2:] == ["on_headers_complete", "on_message_complete"]
