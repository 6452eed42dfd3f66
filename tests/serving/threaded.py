"""A server in a thread of the test, with a tiny application that shows what it receives."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import Receive, Scope, Send

from service.admission.account import Account
from service.serving.connection import Connection
from service.settings import Settings

SECONDS = 20.0
"""Seconds to wait for anything on a busy machine."""


class Application:
    """Answers each body with itself, once ``go`` is set; ``/N`` with so many bytes.

    ``/early`` is answered without reading the body, which ``/late`` reads only once ``go`` is set.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self.account = Account(limit)
        self.go = threading.Event()
        self.go.set()
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.left = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        path: str = scope["path"]
        self.asked.append((scope["method"], path))
        if path == "/early":
            await _answer(send, 401, b"early")
            return
        if path == "/late":
            await self._wait()
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        await self._wait()
        if path == "/chunks":
            await _answer_in_chunks(send, body)
            return
        length = path.rpartition("/")[2]
        await _answer(send, 200, bytes(int(length)) if length.isdigit() else body)

    async def _wait(self) -> None:
        while not self.go.is_set():
            await asyncio.sleep(0.01)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["account"] = self.account
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_in_chunks(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (body[:3], body[3:]):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True)
class Running:
    """A server that runs, and its address."""

    server: uvicorn.Server
    address: tuple[str, int]


@contextmanager
def serving(app: Application, keep_alive_s: int = 75, **settings: Any) -> Generator[Running]:
    """Serve an application until the body of the ``with`` is done."""
    made = cast("type[asyncio.Protocol]", partial(Connection, Settings(**settings)))
    config = uvicorn.Config(
        app, http=made, ws="none", lifespan="on", log_config=None, timeout_keep_alive=keep_alive_s
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until(lambda: server.started)
            yield Running(server, listener.getsockname())
        finally:
            app.go.set()
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@contextmanager
def connected(running: Running, buffer: int | None = None) -> Generator[socket.socket]:
    """Connect; ``buffer`` bytes are read ahead of the client."""
    with socket.socket() as opened:
        if buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        opened.settimeout(SECONDS)
        opened.connect(running.address)
        yield opened


def all_of(opened: socket.socket) -> bytes:
    """Return all that arrives until the server closes."""
    found = bytearray()
    with suppress(ConnectionError):
        while piece := opened.recv(1 << 20):
            found += piece
    return bytes(found)


def statuses(answers: bytes) -> list[int]:
    """Return the status of each answer in a row."""
    return [int(piece[:3]) for piece in answers.split(b"HTTP/1.1 ")[1:]]
