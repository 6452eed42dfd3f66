"""A client that calls an application in this process, as a real one would over HTTP."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import torch
from starlette.types import ASGIApp, Message

from service.admission.account import Account
from service.admission.gate import Gate
from service.admission.lifecycle import Lifecycle
from service.app import create_app
from service.doors.front import Front
from service.engine.lane import Lane
from service.engine.queue import Queue
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.recorder import Recorder


class Client:
    """Sends requests to its own application."""

    def __init__(self, app: ASGIApp | None = None) -> None:
        self.app = app or create_app(Settings(device="cpu"))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and wait for its answer."""
        return asyncio.run(self.ask(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def evaluate(self, loss: str, **body: Any) -> httpx.Response:
        """Evaluate a loss on a JSON body."""
        return self.post(f"/v1/losses/{loss}", json=body)

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request from within an event loop."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://lossd") as client:
            return await client.request(method, path, **options)


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncGenerator[None]:
    """Start an application, as a server does, and shut it down again."""
    messages, heard = asyncio.Queue[Message](), asyncio.Queue[Message]()
    serving = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, messages.get, heard.put))
    for phase in ("startup", "shutdown"):
        await messages.put({"type": f"lifespan.{phase}"})
        assert (await heard.get())["type"] == f"lifespan.{phase}.complete"
        if phase == "startup":
            yield
    await serving


def recording(metrics: Metrics) -> Recorder:
    """Return a recorder that only counts."""
    return Recorder(Queue(torch.device("cpu"), Lane("test", 1), max_work=1), lambda: 0, metrics, None)


def behind_front(app: ASGIApp, recorder: Recorder | None = None) -> Client:
    """Return a client of an application that stands in for the framework."""
    account = Account(1)
    gate = Gate(account, Lifecycle(account), recorder or recording(Metrics()))
    return Client(Front(app, {}, app, gate))
