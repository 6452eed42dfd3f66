"""The bytes of a connection, cut into requests: one at a time, each with its own body and no other's.

httptools parses all that it is given, and stops where a client offers another protocol. Here it is given no more than
one request, and an offer is ignored, as RFC 9110 7.8 allows.
"""

from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

END = b"\r\n\r\n"
"""What the head of a request ends with, and the body if it comes in chunks."""
TURN = 1 << 16
"""Bytes of a head or of chunks that are parsed before others have their turn. As chunks of one byte they take 5 ms."""
MOST_HEADERS = 200
"""As values, the headers of a request take up to 30 times their bytes."""
NOT_HTTP = "Expected a request of HTTP/1.1; got one that is not well formed."


class Malformed(Exception):
    """What was sent is no HTTP, or could be read in two ways."""


class Oversized(Exception):
    """There are more headers, or more bytes that are no body, than a request may have."""


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
    """Whoever is told of a request, in this order; ``on_body`` any number of times."""

    def on_head(self, head: Head) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_end(self) -> None: ...


class RequestParser:
    """Parses one request after another.

    ``head`` is the last one's, ``begun`` whether any of it has arrived, ``complete`` whether all of it has, and ``left``
    how many bytes of its body have not; None where only its end tells.
    """

    def __init__(self, handler: Handler, max_head: int) -> None:
        self._handler = handler
        self._max_head = max_head
        self._parser = HttpRequestParser(self)
        self._fault: Malformed | Oversized | None = None
        """What a call of httptools has raised, of which it may raise something else."""
        self._tail = b""
        self._begin()

    def feed(self, data: bytes) -> bytes:
        """Parse what has arrived, but not beyond the request's end, nor longer than a turn; return the rest.

        Raises:
            Malformed: it is no HTTP.
            Oversized: there is too much that is no body.
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
        """Expect another request."""
        self.head = Head()
        self.complete = False
        self.begun = self._announced = False
        self._framing = self._trailers = 0
        self.left: int | None = None
        self._body: list[bytes] = []

    def _end_of_step(self, data: bytes, position: int) -> int:
        """Return how far to parse next, so that the request ends at the end of a step if it does at all."""
        if self.left is not None:
            return min(position + self.left, len(data))
        if not position and (seam := (self._tail + data[:3]).find(END)) >= 0:
            return seam + len(END) - len(self._tail)
        most = min(position + TURN, len(data))
        found = data.find(END, max(position - 3, 0), most)
        return most if found < 0 else found + len(END)

    def _bound(self, step: memoryview) -> None:
        """Count what is no body: the head, and what surrounds chunks."""
        if self.left is None:
            room = self._max_head - self._framing
            self._framing += len(step)
            if self._framing > self._max_head and not self.head.complete:
                # so that it is known what was asked
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
        """Parse the head again without what it offers: a parser that has stopped there cannot go on with the body."""
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
        """Tell the handler what a step has brought."""
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
        # a trailer means nothing here
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
        """Return the length of the body; None where it comes in chunks. httptools refuses what declares both."""
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
        """End a call of httptools."""
        self._fault = fault
        raise fault
