"""POST /v1/batch: items of any losses in one request, like ones computed together, each with its own fate."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from starlette.types import Receive, Scope

from service.api import body, metrics
from service.api.stages import Stages
from service.api.waiting import deadline, wait
from service.catalogue.registry import Catalogue
from service.engine.call import Evaluation
from service.engine.fuse import likeness
from service.engine.queue import Job, Queue
from service.problems import Internal, Problem
from service.settings import Settings
from service.wire import batch
from service.wire.batch import Item

logger = logging.getLogger("lossd")
PATH = "/v1/batch"
UNDECODED = Internal("The item was not computed.")


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
        loop = asyncio.get_running_loop()
        seconds = deadline(scope, self.settings.deadline_s)
        sent = await body.read(scope, receive, self.settings)
        with self.queue.permit():
            items = await loop.run_in_executor(self.pool, self._decode, sent, stages)
            with stages.measure("compute"):
                results = await self.compute(items, receive, seconds)
            return await loop.run_in_executor(self.pool, self._encode, items, results, stages)

    async def compute(
        self, items: Sequence[Item], receive: Receive, seconds: float
    ) -> list[Evaluation | Problem]:
        """Let the queue compute the valid items, and return what became of each."""
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            if item.decoded is not None:
                groups[likeness(item.decoded.call)].append(place)
        results: list[Evaluation | Problem] = [item.problem or UNDECODED for item in items]
        places: list[int] = []
        jobs: list[Job] = []
        for group in groups.values():
            jobs += self.queue.submit([d.call for place in group if (d := items[place].decoded)])
            places += group
        computed = asyncio.gather(*(job.future for job in jobs))
        done = chain.from_iterable(await wait(computed, receive, seconds))
        for place, result in zip(places, done, strict=True):
            results[place] = result if isinstance(result, Evaluation) else _problem(result)
        metrics.count_items(items, results)
        return results

    def _decode(self, sent: bytes, stages: Stages) -> list[Item]:
        """Read a batch."""
        with stages.measure("decode"):
            return batch.decode(self.catalogue, sent, self.settings.max_batch_items)

    def _encode(
        self, items: Sequence[Item], results: Sequence[Evaluation | Problem], stages: Stages
    ) -> bytes:
        """Write the answer."""
        with stages.measure("encode"):
            return batch.encode(items, results, self.queue.device)


def _problem(error: Exception) -> Problem:
    """Return what to tell of an item that failed while it was computed."""
    if isinstance(error, Problem):
        return error
    logger.error("an item of a batch broke", exc_info=error)
    return Internal("The server broke while it worked on this item; its log tells more.")
