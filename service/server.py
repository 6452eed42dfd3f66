"""How the service is served: by uvicorn, with limits on what a connection may cost before there is a request."""

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from http import HTTPStatus
from time import monotonic
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from service.api import problems
from service.api.context import REQUEST_ID, TRACEPARENT
from service.api.finished import STREAM, route_of
from service.api.gate import Gate
from service.api.stages import Stages
from service.problems import Busy, HeadersTooLarge, Problem, Stalled, Unavailable, Unreadable
from service.settings import Settings, variable

logger = logging.getLogger("lossd")
KEEP_ALIVE_S = 75
"""Longer than the minute for which clients and proxies keep idle connections, so that they close first."""
LAST_WORDS_S = 1
"""How long requests that a drained server has not finished have for their last words."""
HANGS_S = 60.0
"""How long a worker may not answer its parent before it is taken to hang, and replaced."""
LOOK_S = 1.0
"""How often a connection is looked at."""
MOST_IGNORED = 1 << 16
"""Bytes of a refused request's body that are read, so that the connection can be kept."""
REFUSALS_A_SECOND = 1000
"""How many refusals take a tenth of the server's time."""
MOST_PAUSE_S = 0.5
"""How long at most a client that was refused is not heard."""


def serve(settings: Settings, log_config: dict[str, Any]) -> None:
    """Serve until told to stop."""
    config = uvicorn.Config(
        "service.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="service.server:Protocol",
        ws="none",
        proxy_headers=False,
        log_config=log_config,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
    if settings.workers > 1:
        Workers(config, [config.bind_socket()]).run()
    else:
        uvicorn.Server(config).run()


class Workers(Multiprocess):
    """Processes that serve: one that dies is replaced at once, one that hangs after `HANGS_S`; all are told to end.

    Uvicorn's own watch waits for one worker's word at a time, and for long where that one has just died.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._asked: dict[Process, float] = {}

    def keep_subprocess_alive(self) -> None:
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set() or self._is_well(worker):
                continue
            self._asked.pop(worker, None)
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                # another would not start either
                self.should_exit.set()
                return
            logger.warning("worker %s died and is replaced", worker.pid)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()

    def join_all(self) -> None:
        for worker in self.processes:
            while worker.process.is_alive():
                worker.process.join(LOOK_S / 10)
                if signal.SIGTERM in self.signal_queue:
                    self.signal_queue.clear()
                    for other in self.processes:
                        if other.process.is_alive() and other.pid is not None:
                            os.kill(other.pid, signal.SIGTERM)

    def _is_well(self, worker: Process) -> bool:
        """Tell whether a worker lives, and has answered lately; ask it again if it has answered."""
        if not worker.process.is_alive():
            return False
        # one that has just died is seen next time
        with suppress(OSError, EOFError):
            if worker.parent_conn.poll(0):
                worker.parent_conn.recv()
                del self._asked[worker]
            if worker not in self._asked:
                worker.parent_conn.send(b"ping")
                self._asked[worker] = monotonic()
        return monotonic() - self._asked.get(worker, monotonic()) <= HANGS_S


class Protocol(HttpToolsProtocol):
    """One connection, which is looked at every second: whether its client sends and reads on.

    Parts of uvicorn's own protocol are replaced where it would wait or take without end, or answer in plain text.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to look at the connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self._heard = self._begun = self._read = self.loop.time()
        self._head = self._fed = self._unsent = 0
        self._arriving = self._in_head = True
        self._ignores = self._streams = False
        self._looking = self.loop.call_later(LOOK_S, self._look)
        most = _settings().max_connections
        if len(self.connections) > most:
            detail = f"Expected at most {most} connections ({variable('max_connections')}); got one more."
            self._end(Unavailable(detail), "connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note that the client sends, and bound what it may send before there is a request."""
        self._heard = self.loop.time()
        super().data_received(data)
        if self._in_head:
            self._fed += len(data)
            self._refuse_large_head(self._fed)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._streams = False
        self._begun, self._head, self._fed = self.loop.time(), 0, 0
        self._arriving = self._in_head = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + len(b": \r\n")
        if not self._in_head:
            # trailers mean nothing here
            self._refuse_large_head(self._head)
            return
        super().on_header(name, value)
        if name.lower() == b"content-type":
            self._streams = route_of(self._path, value) == STREAM

    def on_headers_complete(self) -> None:
        """Begin with the request, if there is room for it."""
        self._in_head = False
        if self._refuse_large_head(self._head) or self._refuse_work():
            self._ignores = True
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._ignores:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._arriving = False
        if not self._ignores:
            super().on_message_complete()
            return
        self._ignores = False
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._end(Unreadable("Expected a request of HTTP/1.1; got one that is not well formed."), "broken")

    def _refuse_large_head(self, size: int) -> bool:
        """Refuse a request whose line and headers are too large; return whether they are."""
        most = _settings().max_header_bytes
        if size <= most:
            return False
        detail = f"Expected a line and headers of at most {most} bytes ({variable('max_header_bytes')})"
        self._end(HeadersTooLarge(f"{detail}; got more."), "headers")
        return True

    def _refuse_work(self) -> bool:
        """Refuse work that there is no room for before a task is made of it; return whether that is so.

        A server that is asked for ten times what it can do has to say no in a tenth of the time.
        """
        gate: Gate | None = self.app_state.get("gate")
        if gate is None or not gate.closed or self._is_busy() or self.parser is None:
            return False
        path = self._path
        problem = gate.refusal(self.parser.get_method().decode(), path)
        if problem is None:
            return False
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"0")
        short = length.isdigit() and int(length) <= MOST_IGNORED and b"transfer-encoding" not in headers
        if isinstance(problem, Busy) and short and not self.expect_100_continue:
            before, behind = _busy(path, problem.limit, problem.most, problem.retry_after)
            self.transport.write(before + self._own_headers(_identity(headers)) + behind)
            self._pause(gate)
            gate.recorder.shed(route_of(path, headers.get(b"content-type", b"")), problem.limit)
        else:
            self._answer(problem, problem.limit if isinstance(problem, Busy) else "unavailable", close=True)
        return True

    def _pause(self, gate: Gate) -> None:
        """Let a client that was refused wait, in case that it asks again at once as it was told not to.

        The more there are, the longer: to refuse them all must not take the time that the work needs.
        """
        gate.refused += 1
        self.flow.pause_reading()
        self.loop.call_later(min(MOST_PAUSE_S, gate.refused / REFUSALS_A_SECOND), self._hear_again, gate)

    def _hear_again(self, gate: Gate) -> None:
        """End a pause."""
        gate.refused -= 1
        self.flow.resume_reading()

    def _look(self) -> None:
        """End the connection where its client has stalled."""
        self._looking = self.loop.call_later(LOOK_S, self._look)
        if self.transport.is_closing():
            return
        now, settings = self.loop.time(), _settings()
        if unsent := self.transport.get_write_buffer_size():
            if unsent != self._unsent:
                self._unsent, self._read = unsent, now
            elif now - self._read > settings.idle_s:
                self.transport.abort()
            return
        self._unsent = 0
        if self.flow.read_paused:
            # it is not the client that is waited for
            self._heard = now
        elif self._arriving:
            late = now - self._begun > settings.upload_s and not self._streams
            if late or now - self._heard > settings.idle_s:
                if not hasattr(self, "url"):
                    # nothing has been asked
                    self.transport.close()
                    return
                limit = f"{settings.upload_s:g} s (LOSSD_UPLOAD_S), and no pause of {settings.idle_s:g} s (LOSSD_IDLE_S)"
                self._end(Stalled(f"Expected all of the request within {limit}."), "stalled")

    def _is_busy(self) -> bool:
        """Whether an earlier request of the connection is not answered yet."""
        cycle: RequestResponseCycle | None = getattr(self, "cycle", None)
        return cycle is not None and not cycle.response_complete

    @property
    def _path(self) -> str:
        """The path that has been read so far."""
        return getattr(self, "url", b"").decode("latin-1").partition("?")[0]

    def _end(self, problem: Problem, reason: str) -> None:
        """Answer with a problem, if no answer has begun or is due before, and close."""
        if self.transport.is_closing():
            return
        if self._is_busy():
            waits = self._arriving and not self.cycle.response_started and not self.pipeline
            # the application is told that its client has left
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if not waits:
                self.transport.close()
                return
        self._answer(problem, reason, close=True)

    def _answer(self, problem: Problem, reason: str, *, close: bool) -> None:
        """Answer in place of the application."""
        identity = _identity(dict(self.headers or ()))
        before, behind = _written(problem, self._path, close=close)
        self.transport.write(before + self._own_headers(identity) + behind)
        if close:
            self.transport.close()
        if gate := self.app_state.get("gate"):
            method = self.parser.get_method() if self.parser else None
            gate.note((method or b"-").decode("latin-1"), self._path, problem, reason, identity.decode())

    def _own_headers(self, identity: bytes) -> bytes:
        """Return the headers that are this answer's own."""
        headers = (*self.server_state.default_headers, (b"x-request-id", identity))
        return b"".join([b"\r\n%s: %s" % header for header in headers])


def _identity(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's own request id, else its trace's, else a new one."""
    sent = headers.get(b"x-request-id", b"")
    if REQUEST_ID.fullmatch(sent):
        return sent
    trace = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return trace[1] if trace else secrets.token_hex(16).encode()


@lru_cache(maxsize=256)
def _busy(path: str, limit: str, most: str, retry_after: int) -> tuple[bytes, bytes]:
    """Return the answer of a server that is busy, which it has no time to write again and again."""
    return _written(Busy(limit, most, retry_after), path, close=False)


def _written(problem: Problem, path: str, *, close: bool) -> tuple[bytes, bytes]:
    """Return what stands before and behind an answer's own headers in one that tells of a problem."""
    response = problems.response(problem, path)
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()]
    lines += [b"%s: %s" % header for header in response.raw_headers]
    lines += [b"server-timing: " + Stages().header(), *([b"connection: close"] if close else [])]
    return b"\r\n".join(lines), b"\r\n\r\n" + bytes(response.body)


@cache
def _settings() -> Settings:
    """Return the settings of this process."""
    return Settings()
