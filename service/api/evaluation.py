"""POST /v1/losses/{name}, answered in front of the framework: its routing takes as long as a small call.

Decode, submit, encode: what is small is decoded and encoded where it arrives, what is large in a thread.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import body, problems
from service.api.stages import Stages
from service.api.waiting import ClientGone, wait
from service.catalogue.registry import AnyLoss, Catalogue, UnknownLoss
from service.engine.call import Evaluation
from service.engine.queue import Queue
from service.problems import NotFound, Problem
from service.settings import Settings
from service.wire import native

T = TypeVar("T")
PREFIX = "/v1/losses/"
SMALL = 16 * 1024
"""Bytes up to which a body is worked on where it arrives: a hand-over to a thread would cost more."""


class Evaluations:
    """Middleware that answers evaluations of one loss and leaves all else to the application."""

    def __init__(
        self,
        app: ASGIApp,
        catalogue: Catalogue,
        settings: Settings,
        queue: Queue,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.app = app
        self.catalogue = catalogue
        self.settings = settings
        self.queue = queue
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, receive)
        except ClientGone:
            return
        except Problem as problem:
            await problems.response(problem, scope["path"])(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of the answer to one request."""
        stages: Stages = scope["state"]["stages"]
        loss = find(self.catalogue, scope["path"][len(PREFIX) :])
        sent = await body.read(scope, receive, self.settings)
        with self.queue.permit():
            with stages.measure("decode"):
                decoded = await self._work(len(sent), lambda: native.decode(loss, sent))
            [job] = self.queue.submit([decoded.call])
            [result] = await wait(job, receive, self.settings.deadline_s)
            stages.seconds["queue"] = job.started - job.queued
            stages.seconds["compute"] = job.finished - job.started
            if not isinstance(result, Evaluation):
                raise result
            with stages.measure("encode"):
                return await self._work(len(sent), lambda: native.encode(decoded, result, self.queue.device))

    async def _work(self, size: int, task: Callable[[], T]) -> T:
        """Do what takes time in proportion to a body: here if it is small, else in a thread."""
        if size <= SMALL:
            return task()
        return await asyncio.get_running_loop().run_in_executor(self.pool, task)


def find(catalogue: Catalogue, name: str) -> AnyLoss:
    """Look a loss up by name or alias.

    Raises:
        NotFound: there is none; names the closest.
    """
    try:
        return catalogue[name]
    except UnknownLoss as error:
        raise NotFound(str(error)) from None
