"""Two ways in for a request: an application in this process, and a real server."""

import asyncio
import http.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Sent:
    """A POST: its path, its headers, and its body in the pieces in which it arrives."""

    path: str
    chunks: Sequence[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.chunks))


@dataclass(frozen=True)
class Answer:
    """An answer, and the time it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class Door(Protocol):
    """Where requests go in, and answers come out."""

    def ask(self, sent: Sent) -> Answer: ...


class InProcess:
    """Calls an application as a server would, and propagates its exceptions."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()

    def ask(self, sent: Sent) -> Answer:
        """Send one request and wait for its answer."""
        start = perf_counter()
        messages = self._loop.run_until_complete(self._exchange(sent))
        [head, *pieces] = messages
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in head["headers"]}
        body = b"".join(piece.get("body", b"") for piece in pieces)
        return Answer(head["status"], headers, body, perf_counter() - start)

    def close(self) -> None:
        """Let go of the event loop."""
        self._loop.close()

    async def _exchange(self, sent: Sent) -> list[Message]:
        """Return the messages that the application sends."""
        last = len(sent.chunks) - 1
        arriving = iter(
            [
                {"type": "http.request", "body": chunk, "more_body": place < last}
                for place, chunk in enumerate(sent.chunks)
            ]
        )
        answered: list[Message] = []

        async def receive() -> Message:
            if (message := next(arriving, None)) is None:
                await asyncio.Event().wait()
            return message or {}

        async def send(message: Message) -> None:
            answered.append(message)

        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.headers.items()]
        if last == 0:
            headers.append((b"content-length", b"%d" % sent.size))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": unquote(sent.path),
            "raw_path": sent.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self._app(scope, receive, send)
        return answered


class Live:
    """Asks a real server over a connection that is kept as long as it lasts."""

    def __init__(self, url: str, timeout: float = 120) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout)

    def ask(self, sent: Sent) -> Answer:
        """Send one request and wait for its answer."""
        start = perf_counter()
        try:
            return self._ask(sent, start)
        except (http.client.HTTPException, ConnectionError):
            # a server may close once it has refused
            self._connection.close()
            return self._ask(sent, start)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _ask(self, sent: Sent, start: float) -> Answer:
        body: bytes | Iterator[bytes] = sent.chunks[0] if len(sent.chunks) == 1 else filter(None, sent.chunks)
        self._connection.request("POST", sent.path, body, dict(sent.headers))
        answer = self._connection.getresponse()
        content = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, content, perf_counter() - start)
