"""One connection: what it may cost before there is a request, and how long its client may take."""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.admission import problems
from service.admission.context import REQUEST_ID, TRACEPARENT
from service.admission.gate import Gate
from service.problems import Busy, HeadersTooLarge, Problem, Stalled, Unavailable, Unreadable
from service.routes import OTHER, Match, match
from service.settings import Settings, variable
from service.telemetry.stages import Stages

logger = logging.getLogger("lossd")
LOOK_S = 1.0
"""How often a connection is looked at."""
MOST_IGNORED = 1 << 16
"""Bytes of a refused request's body that are read, so that the connection can be kept."""
REFUSALS_A_SECOND = 1000
"""How many refusals take a tenth of the server's time."""
MOST_PAUSE_S = 0.5
"""How long at most a client that was refused is not heard."""


class Protocol(HttpToolsProtocol):
    """One connection, which is looked at every second: whether its client sends and reads on.

    Parts of uvicorn's own protocol are replaced where it would wait or take without end, or answer in plain text.
    """

    def __init__(
        self,
        settings: Settings,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings = settings

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to look at the connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self._heard = self._begun = self._read = self.loop.time()
        self._head = self._fed = self._unsent = 0
        self._arriving = self._in_head = True
        self._ignores = False
        self._asked = Match(OTHER, {})
        self._looking = self.loop.call_later(LOOK_S, self._look)
        most = self._settings.max_connections
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
        self._asked = Match(OTHER, {})
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

    def on_headers_complete(self) -> None:
        """Begin with the request, if there is room for it."""
        self._in_head = False
        self._asked = self._match()
        self.scope.setdefault("state", {})["match"] = self._asked
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
        most = self._settings.max_header_bytes
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
        problem = gate.refusal(self._asked.route)
        if problem is None:
            return False
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"0")
        short = length.isdigit() and int(length) <= MOST_IGNORED and b"transfer-encoding" not in headers
        if isinstance(problem, Busy) and short and not self.expect_100_continue:
            before, behind = _busy(path, problem.limit, problem.most, problem.retry_after)
            self.transport.write(before + self._own_headers(_identity(headers)) + behind)
            self._pause(gate)
            gate.recorder.shed(self._asked.route.label, problem.limit)
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
        now, settings = self.loop.time(), self._settings
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
            late = now - self._begun > settings.upload_s and not self._asked.route.stream
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

    def _match(self) -> Match:
        """Match what has been read of the request so far."""
        method = self.parser.get_method() if self.parser else b""
        media = dict(self.headers or ()).get(b"content-type", b"")
        return match((method or b"").decode("latin-1"), self._path, media)

    @property
    def _path(self) -> str:
        """The path that has been read so far."""
        return unquote(getattr(self, "url", b"").decode("latin-1").partition("?")[0])

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
            told = (method or b"-").decode("latin-1")
            gate.note(told, self._path, self._match().route, problem, reason, identity.decode())

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
