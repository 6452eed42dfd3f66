"""POST /v2/models/{name}/infer of the Open Inference Protocol.

A binary tensor is copied once on its way in, into the buffer that the tensor views, and not at all on its
way out.
"""

from collections.abc import Mapping
from functools import partial
from time import perf_counter

from starlette.types import Receive, Scope

from service.admission import body
from service.catalogue.registry import AnyLoss, Catalogue
from service.doors.coded import inflate
from service.doors.evaluation import find_declared
from service.doors.exchange import Exchange
from service.doors.front import Answer
from service.doors.pipeline import Pipeline, Work
from service.doors.waiting import deadline
from service.problems import Invalid, NotFound, Problem, quoted
from service.settings import Settings
from service.telemetry.statistics import ModelStatistics
from service.wire.inference.metadata import VERSION


class Inferences:
    """Answers inference requests."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: Settings,
        pipeline: Pipeline,
        statistics: Mapping[str, ModelStatistics],
    ) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.pipeline = pipeline
        self.statistics = statistics

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Answer one request and count it."""
        loss = find_model(self.catalogue, **scope["state"]["match"].parameters)
        start, counts, stages = perf_counter(), self.statistics[loss.name], scope["state"]["stages"]
        stages.loss = loss.name
        try:
            work, answer = await self._answer(loss, scope, receive)
        except Problem:
            counts.fail(perf_counter() - start)
            raise
        counts.succeed(stages.seconds, perf_counter() - start, together=work.together, leads=work.leads)
        return answer

    async def _answer(self, loss: AnyLoss, scope: Scope, receive: Receive) -> tuple[Work, Answer]:
        """Return the answer to one request, and the work it took."""
        headers = scope["state"]["headers"]
        exchange = Exchange(loss, headers)
        seconds = deadline(headers, self.settings.deadline_s)
        await body.read_into(exchange.buffer, scope, receive, self.settings)
        work = self.pipeline.begin(scope, receive, len(exchange.buffer), seconds)
        try:
            if exchange.coding:
                coded, limit = exchange.swap(), self.settings.max_body_bytes
                await inflate(self.pipeline, work, coded, exchange.coding, exchange.buffer, limit)
                del coded
            read = partial(work.timed, "decode", exchange.read)
            reader = await self.pipeline.run(work, read, exchange.seconds_to_read)
            work.due = work.due.sooner(reader.options.timeout_s)
            decode = partial(exchange.decode, reader)
            try:
                answer = await self.pipeline.call(work, decode, exchange.encode, exchange.seconds_to_decode)
            except Invalid as invalid:
                # of values that only the arithmetic refuses
                raise reader.placed(invalid) from None
        finally:
            # a job that never starts would keep the buffer alive
            exchange.buffer = bytearray()
        return work, answer


def find_model(catalogue: Catalogue, model: str, version: str | None = None) -> AnyLoss:
    """Look a model up.

    Raises:
        NotFound: there is no such model, or no such version of it.
    """
    loss = find_declared(catalogue, model)
    if version not in (None, VERSION):
        raise NotFound(f"{loss.name} has no version {quoted(version)}; it has {VERSION}.")
    return loss
