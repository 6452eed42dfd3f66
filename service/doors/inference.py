"""POST /v2/models/{name}/infer of the Open Inference Protocol, answered in front of the framework.

A binary tensor is copied once on its way in, into the buffer that the tensor then views, and not at all on its
way out. What is small is worked on where it arrives and computed with others like it, what is large in a
thread.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import body, problems
from service.admission.account import Hold
from service.admission.body import ClientGone
from service.catalogue.registry import AnyLoss, Catalogue
from service.doors.evaluation import find
from service.doors.exchange import SMALL, Answer, Exchange
from service.doors.waiting import Due, compute, compute_here, deadline, in_thread, wait
from service.engine.call import Evaluation
from service.engine.queue import Queue
from service.problems import NotFound, Problem, quoted
from service.settings import Settings
from service.telemetry.stages import Stages
from service.telemetry.statistics import ModelStatistics
from service.wire.inference.metadata import VERSION
from service.wire.inference.read import Decoded, Reader


class Inferences:
    """Middleware that answers inference requests, and leaves all else to the application."""

    def __init__(
        self,
        app: ASGIApp,
        catalogue: Catalogue,
        settings: Settings,
        queue: Queue,
        pool: ThreadPoolExecutor,
        statistics: Mapping[str, ModelStatistics],
    ) -> None:
        self.app = app
        self.catalogue = catalogue
        self.settings = settings
        self.queue = queue
        self.pool = pool
        self.statistics = statistics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["state"]["match"].route.door != "infer":
            await self.app(scope, receive, send)
            return
        try:
            answer = await self._counted(
                model(self.catalogue, **scope["state"]["match"].parameters), scope, receive
            )
        except ClientGone:
            return
        except Problem as problem:
            await problems.answer(problem, scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
        for place, part in enumerate(answer.parts, 1):
            more = place < len(answer.parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})

    async def _counted(self, loss: AnyLoss, scope: Scope, receive: Receive) -> Answer:
        """Answer a request, and count it."""
        start, counts, stages = perf_counter(), self.statistics[loss.name], scope["state"]["stages"]
        stages.loss = loss.name
        try:
            exchange = Exchange(
                loss, Headers(scope=scope), stages, self.settings.max_body_bytes, scope["state"]["hold"].take
            )
            answer = await self._answer(exchange, scope, receive)
        except Problem:
            counts.fail(perf_counter() - start)
            raise
        counts.succeed(
            stages.seconds, perf_counter() - start, together=exchange.together, leads=exchange.leads
        )
        return answer

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request."""
        seconds = deadline(scope, self.settings.deadline_s)
        await body.read_into(exchange.buffer, scope, receive, self.settings)
        hold: Hold = scope["state"]["hold"]
        hold.at_end(self.queue.permit())
        try:
            return await self._worked(exchange, hold, receive, Due(seconds), scope["state"]["stages"])
        finally:
            # work that no thread has come to would stay in the pool's queue with all it holds
            exchange.buffer = bytearray()

    async def _worked(
        self, exchange: Exchange, hold: Hold, receive: Receive, due: Due, stages: Stages
    ) -> Answer:
        """Work on a request that is here."""
        if exchange.readable:
            reader = exchange.read()
        else:
            reader = await wait(in_thread(self.pool, hold, exchange.read), receive, due)
        due = due.sooner(reader.options.timeout_s)
        if exchange.small:
            decoded = exchange.decode(reader)
            evaluation = await self._compute(exchange, decoded, hold, receive, due, stages)
            if evaluation.value.nbytes <= SMALL:
                return exchange.encode(decoded, evaluation)
        elif self.queue.device.type == "cpu":
            work = in_thread(self.pool, hold, self._work, exchange, reader, stages, perf_counter())
            return await wait(work, receive, due)
        else:
            decoded = await wait(in_thread(self.pool, hold, exchange.decode, reader), receive, due)
            evaluation = await self._compute(exchange, decoded, hold, receive, due, stages)
        writing = in_thread(self.pool, hold, exchange.encode, decoded, evaluation)
        return await wait(writing, receive, due)

    async def _compute(
        self, exchange: Exchange, decoded: Decoded, hold: Hold, receive: Receive, due: Due, stages: Stages
    ) -> Evaluation:
        """Let the queue compute a call."""
        evaluation, job = await compute(self.queue, decoded.call, hold, receive, due, stages)
        exchange.together, exchange.leads = job.together, job.leads
        return evaluation

    def _work(self, exchange: Exchange, reader: Reader, stages: Stages, queued: float) -> Answer:
        """Decode, compute, encode."""
        stages.seconds["queue"] = perf_counter() - queued
        decoded = exchange.decode(reader)
        return exchange.encode(decoded, compute_here(self.queue, decoded.call, stages))


def model(catalogue: Catalogue, model: str, version: str | None = None) -> AnyLoss:
    """Look a model up.

    Raises:
        NotFound: there is no such model, or no such version of it.
    """
    loss = find(catalogue, model)
    if version not in (None, VERSION):
        raise NotFound(f"{loss.name} has no version {quoted(version)}; it has {VERSION}.")
    return loss
