"""Split a connection's bytes into requests, one at a time, each with its own body and no other's.

httptools parses everything it is given and stops where a client offers a protocol upgrade. Here it is given one
request at a time, and upgrades are ignored, as RFC 9110 7.8 allows.
"""

from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

END = b"\r\n\r\n"
"""The end of a request's head, and of a chunked body."""
TURN = 1 << 16
"""Bytes of a head or of chunks to parse before other connections get their turn: 5 ms as chunks of one byte."""
MOST_HEADERS = 200
"""Parsed headers take up to 30 times their size on the wire."""
NOT_HTTP = "Expected a request of HTTP/1.1; got one that is not well formed."


class Malformed(Exception):
    """The request is not valid HTTP, or is ambiguous."""


class Oversized(Exception):
    """The request has too many headers, or too many bytes outside its body."""


@dataclass(slots=True)
class Head:
    """A request's line and headers, as far as they have arrived."""

    method: str = "-"
    target: bytes = b""
    version: str = "1.1"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    keep_alive: bool = True
    complete: bool = False


class Handler(Protocol):
    """Receives the parts of a request in this order; ``on_body`` is called any number of times."""

    def on_head(self, head: Head) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_end(self) -> None: ...


class RequestParser:
    """Parses one request after another.

    ``head`` belongs to the current request; ``begun`` and ``complete`` say whether any or all of it has arrived;
    ``left`` is the number of body bytes still to come, None if only the end of the body shows its length.
    """

    def __init__(self, handler: Handler, max_head: int) -> None:
        self._handler = handler
        self._max_head = max_head
        self._parser = HttpRequestParser(self)
        self._fault: Malformed | Oversized | None = None
        """The exception raised in a callback of httptools, which may raise a different one in its place."""
        self._tail = b""
        self._begin()

    def feed(self, data: bytes) -> bytes:
        """Parse the received bytes up to the end of the request, at most one turn; return the rest.

        Raises:
            Malformed: the bytes are not valid HTTP.
            Oversized: there are too many bytes outside the body.
        """
        if self.complete:
            self._begin()
        view, position = memoryview(data), 0
        while position < len(data) and not self.complete and (position < TURN or self.left is not None):
            end = self._end_of_step(data, position)
            self._bound(view[position:end])
            self._parse(view[position:end])
            self._deliver(end - position)
            position = end
        self._tail = (self._tail + data[:position])[-3:] if position < 3 else data[position - 3 : position]
        return data[position:]

    def _begin(self) -> None:
        """Start on another request."""
        self.head = Head()
        self.complete = False
        self.begun = self._announced = False
        self._framing = self._trailers = 0
        self.left: int | None = None
        self._body: list[bytes] = []

    def _end_of_step(self, data: bytes, position: int) -> int:
        """Return where the next step ends: at the end of the request, if it lies in these bytes."""
        if self.left is not None:
            return min(position + self.left, len(data))
        if not position and (seam := (self._tail + data[:3]).find(END)) >= 0:
            return seam + len(END) - len(self._tail)
        most = min(position + TURN, len(data))
        found = data.find(END, max(position - 3, 0), most)
        return most if found < 0 else found + len(END)

    def _bound(self, step: memoryview) -> None:
        """Limit the bytes outside the body: the head, and the framing of chunks."""
        if self.left is None:
            room = self._max_head - self._framing
            self._framing += len(step)
            if self._framing > self._max_head and not self.head.complete:
                # parse what fits, so that the refusal can name the route
                self._parse(step[: max(room, 0)])
                raise Oversized

    def _parse(self, step: memoryview) -> None:
        """Parse a step."""
        try:
            self._parser.feed_data(step)
            return
        except HttpParserUpgrade as stopped:
            end = stopped.args[0]
        except HttpParserError:
            raise self._fault or Malformed(NOT_HTTP) from None
        if end != len(step):
            raise Malformed(NOT_HTTP)
        self._ignore_upgrade()

    def _ignore_upgrade(self) -> None:
        """Parse the head again without the upgrade offer: a parser that has stopped there cannot read the body."""
        head = self.head
        if head.method == "CONNECT":
            raise Malformed("Expected a request for a resource of this server; got CONNECT.")
        kept = [b"%s: %s" % (name, value) for name, value in head.headers if name != b"upgrade"]
        version = self._parser.get_http_version().encode()
        line = b"%s %s HTTP/%s" % (head.method.encode(), head.target, version)
        self._parser = HttpRequestParser(self)
        self._begin()
        self._parse(memoryview(b"\r\n".join([line, *kept]) + END))

    def _deliver(self, length: int) -> None:
        """Pass on the events of a step to the handler."""
        if self.head.complete and not self._announced:
            self._announced = True
            self._framing = 0
            self._handler.on_head(self.head)
        elif self.left is not None:
            self.left -= length
        if self._body:
            body, self._body = b"".join(self._body), []
            self._framing = 0
            self._handler.on_body(body)
        if self.complete:
            self._handler.on_end()
        elif self.left == 0:
            raise Malformed(NOT_HTTP)
        elif self._announced and self._framing > self._max_head:
            raise Oversized

    # called by httptools

    def on_message_begin(self) -> None:
        if self.begun:
            self._fail(Malformed(NOT_HTTP))
        self.begun = True

    def on_url(self, url: bytes) -> None:
        self.head.method = self._parser.get_method().decode("ascii")
        self.head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head.complete:
            self.head.headers.append((name.lower(), value))
            if len(self.head.headers) > MOST_HEADERS:
                self._fail(Oversized())
            return
        # trailers are ignored
        self._trailers += len(name) + len(value) + len(b": \r\n")
        if self._trailers > self._max_head:
            self._fail(Oversized())

    def on_headers_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        head = self.head
        head.version = self._parser.get_http_version()
        if head.version not in ("1.0", "1.1"):
            self._fail(Malformed(f"Expected a request of HTTP/1.1; got one of HTTP/{head.version}."))
        head.keep_alive = head.version == "1.1" and self._parser.should_keep_alive()
        self.left = self._length()
        head.complete = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = not self._parser.should_upgrade()

    def _length(self) -> int | None:
        """Return the length of the body, None if it is chunked. httptools refuses requests that declare both."""
        head = self.head
        codings = [value for name, value in head.headers if name == b"transfer-encoding"]
        if not codings:
            return next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        coding = b", ".join(codings)
        if head.version == "1.0" or coding.lower() != b"chunked":
            got = f"{coding[:100].decode('latin-1')!r} in HTTP/{head.version}"
            self._fail(Malformed(f"Expected no Transfer-Encoding but chunked, in HTTP/1.1; got {got}."))
        return None

    def _fail(self, fault: Malformed | Oversized) -> NoReturn:
        """Abort the current call of httptools."""
        self._fault = fault
        raise fault
