"""POST /v1/batch: items of any losses in one request, like ones computed together, each with its own fate."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Receive, Scope

from service.admission import body
from service.admission.account import Hold
from service.catalogue.registry import Catalogue
from service.doors.waiting import Due, deadline, in_thread, wait
from service.engine.call import Evaluation
from service.engine.fuse import Results
from service.engine.queue import Job, Queue
from service.engine.stack import Evaluations, Part, Stack
from service.problems import Internal, Problem
from service.settings import Settings
from service.telemetry import metrics
from service.telemetry.stages import Stages
from service.wire import batch
from service.wire.batch import Batch
from service.wire.json import Body

logger = logging.getLogger("lossd")
PATH = "/v1/batch"


class Batches:
    """Answers batches: decoded and encoded in a thread, computed by the queue."""

    def __init__(
        self, catalogue: Catalogue, settings: Settings, queue: Queue, pool: ThreadPoolExecutor
    ) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.queue = queue
        self.pool = pool

    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of the answer to one batch."""
        stages: Stages = scope["state"]["stages"]
        hold: Hold = scope["state"]["hold"]
        seconds = deadline(scope, self.settings.deadline_s)
        sent = await body.read(scope, receive, self.settings)
        due = Due(seconds)
        hold.at_end(self.queue.permit())
        held, sent = [sent], b""
        try:
            asked = await wait(in_thread(self.pool, hold, self._decode, held, stages), receive, due)
        finally:
            held.clear()
        with stages.measure("compute"):
            outcomes = await self.compute(asked, hold, receive, due)
        return await wait(in_thread(self.pool, hold, self._encode, asked, outcomes, stages), receive, due)

    async def compute(
        self, asked: Batch, hold: Hold, receive: Receive, due: Due
    ) -> Sequence[Sequence[batch.Outcome]]:
        """Let the queue compute the valid items, and return what became of each group, in pieces."""
        jobs = [self._submit(group.part, hold) for group in asked.groups]
        computed = asyncio.gather(*(job.future for pieces in jobs for job in pieces))
        done = iter(await wait(computed, receive, due))
        outcomes = [[_outcome(next(done)) for _ in pieces] for pieces in jobs]
        metrics.count_items(asked, outcomes)
        return outcomes

    def _submit(self, part: Part, hold: Hold) -> Sequence[Job]:
        """Queue the calls of a group."""
        if isinstance(part, Stack):
            return self.queue.submit_all(part, hold)
        return [self.queue.submit(part, hold)]

    def _decode(self, held: list[Body], stages: Stages) -> Batch:
        """Read a batch."""
        with stages.measure("decode"):
            return batch.decode(self.catalogue, held.pop(), self.settings.max_batch_items)

    def _encode(self, asked: Batch, outcomes: Sequence[Sequence[batch.Outcome]], stages: Stages) -> bytes:
        """Write the answer."""
        with stages.measure("encode"):
            return batch.encode(asked, outcomes, self.queue.device)


def _outcome(results: Results) -> batch.Outcome:
    """Return what to tell of items, with a problem for each that failed while it was computed."""
    if isinstance(results, Evaluations):
        return results
    return [result if isinstance(result, Evaluation) else _problem(result) for result in results]


def _problem(error: Exception) -> Problem:
    """Return what to tell of an item that failed while it was computed."""
    if isinstance(error, Problem):
        return error
    logger.error("an item of a batch broke", exc_info=error)
    return Internal("The server broke while it worked on this item; its log tells more.")
