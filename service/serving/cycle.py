"""One request and its answer as the ASGI application sees them: `receive` and `send`."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Message, Scope

from service.admission.account import Hold
from service.serving.outflow import Outflow
from service.serving.parser import Head, Malformed

logger = logging.getLogger("lossd")
HIGH_WATER = 1 << 16
"""Bytes of a body that may wait for the application; beyond that, reading from the client pauses."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ASGI = {"version": "3.0", "spec_version": "2.3"}
BODILESS = (204, 304)
STATUS_LINES = {status.value: f"HTTP/1.1 {status} {status.phrase}".encode() for status in HTTPStatus}


class Wire(Protocol):
    """The connection as its requests see it."""

    out: Outflow

    def listen(self) -> None: ...
    def answered(self) -> None: ...
    def break_off(self) -> None: ...
    @property
    def default_headers(self) -> Sequence[tuple[bytes, bytes]]: ...


class Cycle:
    """A request handled by the application; the received part of its body is counted on its hold."""

    def __init__(
        self,
        wire: Wire,
        scope: Scope,
        *,
        keep_alive: bool,
        expects: bool,
        streams: bool = False,
    ) -> None:
        self.keep_alive = keep_alive
        self.started = self.complete = self.disconnected = False
        self.waiting = 0
        """Bytes of the body not yet received by the application."""
        self._hold: Hold | None = scope["state"]["hold"]
        self._wire = wire
        self._out = wire.out
        self._scope = scope
        self._expects = expects
        self._streams = streams
        self._chunks: list[bytes] = []
        self._more = True
        self._changed = asyncio.Event()
        self._head = b""
        self._left: int | None = None
        self._bodiless = self._chunked = False

    async def run(self, app: ASGIApp) -> None:
        """Run the application; an answer it leaves unfinished is broken off."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._wire.break_off()
            raise
        except Exception:
            logger.exception("the application failed")
            self._wire.break_off()
        else:
            if not self.complete and not self.disconnected:
                logger.error("the application did not finish its answer")
                self._wire.break_off()

    def feed(self, body: bytes) -> None:
        """Keep a piece of the body until the application receives it."""
        self._chunks.append(body)
        self.waiting += len(body)
        if self._hold:
            self._hold.add(len(body))
        self._changed.set()

    def end(self) -> None:
        """Note the end of the body."""
        self._more = self._expects = False
        self._changed.set()

    def disconnect(self) -> None:
        """Note that the client has left."""
        self.disconnected = True
        if self._hold:
            self._hold.gone = True
        self._changed.set()

    async def receive(self) -> Message:
        """Wait for more of the body and return it; for a stream at most `HIGH_WATER` bytes at once."""
        if self._expects and not self.started:
            self._out.write(CONTINUE)
        self._expects = False
        if not self.disconnected and not self.complete:
            self._wire.listen()
            await self._changed.wait()
            self._changed.clear()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, rest = b"".join(self._chunks), b""
        if self._streams:
            body, rest = body[:HIGH_WATER], body[HIGH_WATER:]
        self._chunks = [rest] if rest else []
        if rest:
            self._changed.set()
        self.waiting -= len(body)
        if self._hold:
            self._hold.give(len(body))
        return {"type": "http.request", "body": body, "more_body": self._more or bool(rest)}

    async def send(self, message: Message) -> None:
        """Write a part of the answer, after the previous part has been sent."""
        await self._out.left()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the head of the answer; if the body's length is known, it is sent together with the first part."""
        if self.started:
            raise RuntimeError("Expected the rest of an answer; got the start of another.")
        self.started = True
        lines = [b"%s: %s" % header for header in (*self._wire.default_headers, *headers)]
        fields = {name.lower(): value for name, value in headers}
        if self._expects or fields.get(b"connection", b"").lower() == b"close":
            # the client was not asked to send its body, and may or may not do so
            self.keep_alive = False
        if not self.keep_alive and b"connection" not in fields:
            lines.append(b"connection: close")
        self._bodiless = self._scope["method"] == "HEAD" or status in BODILESS
        if b"content-length" in fields:
            self._left = int(fields[b"content-length"])
        elif not self._bodiless and self._scope["http_version"] == "1.1":
            lines.append(b"transfer-encoding: chunked")
            self._chunked = True
        self._head = b"\r\n".join([STATUS_LINES[status], *lines, b"\r\n"])
        if not self._head.count(b"\n") == self._head.count(b"\r") == len(lines) + 2:
            raise RuntimeError("Expected headers of one line; got one with a line break.")
        if self._left is None and not self._bodiless:
            self._out.write(self._head)
            self._head = b""

    def _write(self, body: bytes, *, more: bool) -> None:
        """Write a part of the body."""
        if self.complete or not self.started:
            raise RuntimeError("Expected a part of the body after the answer's start and before its end.")
        parts = [self._head]
        self._head = b""
        if self._bodiless:
            pass
        elif self._chunked:
            parts += [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            parts += [] if more else [b"0\r\n\r\n"]
        else:
            parts.append(body)
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (self._left and not more):
                    raise RuntimeError("Expected a body as long as its Content-Length.")
        self.complete = not more
        self._out.write(*filter(len, parts))
        if self.complete:
            self._drop()
            self._changed.set()
            self._wire.answered()

    def _drop(self) -> None:
        """Discard the unread part of the body."""
        if self._hold:
            self._hold.give(self.waiting)
        self.waiting = 0
        self._chunks.clear()


def scope_of(head: Head, transport: asyncio.Transport, state: Mapping[str, Any]) -> Scope:
    """Return the ASGI scope of a request; ``state`` is copied.

    Raises:
        Malformed: the request target is not valid for this server.
    """
    try:
        target = httptools.parse_url(head.target)
        raw_path = target.path or b"/"
        path = raw_path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        raise Malformed("Expected a path of this server as the request's target.") from None
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": head.version,
        "server": transport.get_extra_info("sockname"),
        "client": transport.get_extra_info("peername"),
        "scheme": "http",
        "method": head.method,
        "root_path": "",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": target.query or b"",
        "headers": head.headers,
        "state": {**state},
    }
