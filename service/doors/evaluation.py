"""POST /v1/losses/{name}, answered in front of the framework: its routing takes as long as a small call.

What is small is decoded and encoded where it arrives, and computed with others like it; what is large is worked
on in a thread.
"""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import body, problems
from service.admission.body import ClientGone
from service.catalogue.registry import AnyLoss, Catalogue, UnknownLoss
from service.doors.batch import Batches
from service.doors.stream import Streams
from service.doors.waiting import Due, compute, compute_here, deadline, in_thread, wait
from service.engine.call import Evaluation
from service.engine.memory import give_back_memory
from service.engine.queue import Queue
from service.problems import Busy, NotFound, Problem
from service.settings import Settings
from service.telemetry.stages import Stages
from service.wire import native
from service.wire.json import LARGE, Body

SMALL = 16 * 1024
"""Bytes up to which a body is worked on where it arrives: a hand-over to a thread would cost more."""


class Evaluations:
    """Middleware that answers evaluations of one loss, and of many, and leaves all else to the application."""

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
        self.batches = Batches(catalogue, settings, queue, pool)
        self.streams = Streams(self.batches, settings, pool)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = scope["state"]["match"].route.door if scope["type"] == "http" else ""
        if door == "evaluate":
            answering = self._answer(scope, receive)
        elif door == "stream":
            await self._stream(scope, receive, send)
            return
        elif door == "batch":
            answering = self.batches.answer(scope, receive)
        else:
            await self.app(scope, receive, send)
            return
        try:
            answer = await answering
        except ClientGone:
            return
        except Problem as problem:
            await problems.answer(problem, scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a stream of items; once its first line is sent, there is no other answer."""
        try:
            await self.streams.answer(scope, receive, send)
        except ClientGone:
            return
        except Busy as busy:
            await problems.answer(busy, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of the answer to one request."""
        stages: Stages = scope["state"]["stages"]
        loss = find(self.catalogue, scope["state"]["match"].parameters["name"])
        stages.loss = loss.name
        seconds = deadline(scope, self.settings.deadline_s)
        sent = await body.read(scope, receive, self.settings)
        due, hold = Due(seconds), scope["state"]["hold"]
        hold.at_end(self.queue.permit())
        if len(sent) <= SMALL:
            decoded = _decode(loss, sent, stages)
            evaluation, _ = await compute(self.queue, decoded.call, hold, receive, due, stages)
            return self._encode(decoded, evaluation, stages)
        if self.queue.device.type == "cpu":
            held, sent = [sent], b""
            whole = in_thread(self.pool, hold, self._work, loss, held, stages, perf_counter())
            try:
                return await wait(whole, receive, due)
            finally:
                # one that no thread has come to would stay in the pool's queue with all it holds
                held.clear()
        decoded = await wait(in_thread(self.pool, hold, _decode, loss, sent, stages), receive, due)
        evaluation, _ = await compute(self.queue, decoded.call, hold, receive, due, stages)
        writing = in_thread(self.pool, hold, self._encode, decoded, evaluation, stages)
        return await wait(writing, receive, due)

    def _work(self, loss: AnyLoss, held: list[Body], stages: Stages, queued: float) -> bytes:
        """Decode, compute, encode. What is held is let go of as soon as it is read: the rest needs the room."""
        stages.seconds["queue"] = perf_counter() - queued
        large = len(held[0]) > LARGE
        with stages.measure("decode"):
            decoded = native.decode(loss, held.pop())
        evaluation = compute_here(self.queue, decoded.call, stages)
        written = self._encode(decoded, evaluation, stages)
        if large:
            give_back_memory(self.queue.device)
        return written

    def _encode(self, decoded: native.Decoded, evaluation: Evaluation, stages: Stages) -> bytes:
        """Write an answer."""
        with stages.measure("encode"):
            return native.encode(decoded, evaluation, self.queue.device)


def _decode(loss: AnyLoss, sent: Body, stages: Stages) -> native.Decoded:
    """Read a request."""
    with stages.measure("decode"):
        return native.decode(loss, sent)


def find(catalogue: Catalogue, name: str) -> AnyLoss:
    """Look a loss up by name or alias.

    Raises:
        NotFound: there is none; names the closest.
    """
    try:
        return catalogue[name]
    except UnknownLoss as error:
        raise NotFound(str(error)) from None
