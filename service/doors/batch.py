"""POST /v1/batch: items of any losses in one request; like items are computed together, and each fails alone."""

import logging
from collections.abc import Sequence

from starlette.types import Receive, Scope

from service.admission import body
from service.catalogue.registry import Catalogue
from service.doors.front import Answer, json_answer
from service.doors.pipeline import Pipeline
from service.doors.waiting import deadline
from service.engine.call import Evaluation
from service.engine.fuse import Results
from service.engine.stack import Evaluations, Part
from service.problems import Internal, Problem
from service.settings import Settings
from service.telemetry import metrics
from service.wire import batch
from service.wire.batch import Batch, Outcome

logger = logging.getLogger("lossd")
PATH = "/v1/batch"


class Batches:
    """Answers batches."""

    def __init__(self, catalogue: Catalogue, settings: Settings, pipeline: Pipeline) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.pipeline = pipeline

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one batch."""
        seconds = deadline(scope, self.settings.deadline_s)
        # decoding takes the body out, so that its memory is free for the rest
        held = [await body.read(scope, receive, self.settings)]
        work = self.pipeline.begin(scope, receive, len(held[0]), seconds)

        def decode() -> Batch:
            return batch.decode(self.catalogue, held.pop(), self.settings.max_batch_items)

        return await self.pipeline.batch(work, decode, parts_of, self._encode)

    def _encode(self, asked: Batch, results: Sequence[Sequence[Results]]) -> Answer:
        """Write the answer."""
        outcomes = outcomes_of(asked, results)
        queue = self.pipeline.queue
        return json_answer(*batch.parts(asked, outcomes, queue.observer))


def parts_of(asked: Batch) -> Sequence[Part]:
    """Return the calls of a batch in parts of like calls."""
    return [group.part for group in asked.groups]


def outcomes_of(asked: Batch, results: Sequence[Sequence[Results]]) -> Sequence[Sequence[Outcome]]:
    """Return the outcome of each group, in pieces, and count it."""
    outcomes = [[_outcome(piece) for piece in pieces] for pieces in results]
    metrics.count_items(asked, outcomes)
    return outcomes


def _outcome(results: Results) -> Outcome:
    """Return the outcomes of items, with a problem for each that failed."""
    if isinstance(results, Evaluations):
        return results
    return [result if isinstance(result, Evaluation) else _problem(result) for result in results]


def _problem(error: Exception) -> Problem:
    """Return the problem of an item that failed."""
    if isinstance(error, Problem):
        return error
    logger.error("an item of a batch failed", exc_info=error)
    return Internal("The server failed while processing this item; see its log.")
