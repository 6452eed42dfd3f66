"""POST /v1/batch: items of any losses in one request; like items are computed together, and each fails alone."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from starlette.types import Receive, Scope

from service.catalogue.registry import Catalogues
from service.catalogue.rounds import Abandoned, go_on
from service.doors.coded import begin, json_answer
from service.doors.front import Answer
from service.doors.metrics import refuse_excess
from service.doors.pipeline import Pipeline
from service.engine import cost
from service.engine.call import Evaluation
from service.engine.compose import compose_alike
from service.engine.composition import CompositionPlan, Planner
from service.engine.fuse import Results
from service.engine.measure import Measurement, measure
from service.engine.queue import Queue
from service.engine.stack import Evaluations, Part
from service.problems import Internal, Problem
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire import batch
from service.wire.batch import Apart, Batch, Outcome
from service.wire.compose import composition_answer
from service.wire.metrics import metric_answer

logger = logging.getLogger("lossd")


class Batches:
    """Answers batches."""

    def __init__(
        self,
        catalogues: Catalogues,
        settings: Settings,
        pipeline: Pipeline,
        planner: Planner,
        metrics: Metrics,
    ) -> None:
        self.catalogues = catalogues
        self.settings = settings
        self.pipeline = pipeline
        self.planner = planner
        self.metrics = metrics

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one batch."""
        work = await begin(self.pipeline, scope, receive, self.settings)
        queue, headers = self.pipeline.queue, scope["state"]["headers"]

        def decode() -> Batch:
            most = self.settings.max_batch_items
            return batch.decode_batch(self.catalogues, work.held.pop(), most, self.planner)

        def encode(asked: Batch, results: Sequence[Sequence[Results]]) -> Answer:
            outcomes = outcomes_of(results)
            apart = answer_apart(asked, queue)
            self.metrics.count_items(asked, outcomes, apart)
            return json_answer(batch.batch_parts(asked, outcomes, queue.observer, apart), headers)

        return await self.pipeline.batch(work, decode, parts_of, encode, seconds_apart)


def parts_of(asked: Batch) -> Sequence[Part]:
    """Return the calls of a batch in parts of like calls."""
    return [group.part for group in asked.groups]


def seconds_apart(asked: Batch) -> float:
    """Estimate the time to compute metrics and compositions."""
    works = [one.work for one in asked.measurements.values()]
    works += [one.asked.plan.work for one in asked.compositions.values()]
    return sum(map(cost.computing, works))


def answer_apart(asked: Batch, queue: Queue) -> Apart:
    """Answer the items that are metrics, each alone, and compositions, like ones together; failures stay separate."""
    answers = {place: _measured(one, queue) for place, one in asked.measurements.items()}
    kinds = defaultdict[CompositionPlan, list[int]](list)
    for place, decoded in asked.compositions.items():
        kinds[decoded.asked.plan].append(place)
    for plan, places in kinds.items():
        most = max(1, cost.BUDGET // plan.work) if queue.fuse else 1
        for start in range(0, len(places), most):
            go_on()
            some = places[start : start + most]
            found = compose_alike([asked.compositions[place].asked for place in some], queue.compute_part)
            for place, one in zip(some, found, strict=True):
                failed = isinstance(one, Exception)
                decoded = asked.compositions[place]
                answers[place] = _problem(one) if failed else composition_answer(decoded, one)
    return answers


def _measured(asked: Measurement, queue: Queue) -> dict[str, Any] | Problem:
    """Return the answer to one item, or its problem."""
    go_on()
    try:
        refuse_excess(asked.work, queue.max_work)
        return metric_answer(asked, *measure(asked, queue.device))
    except Abandoned:
        raise
    except Exception as error:
        return _problem(error.with_traceback(None))


def outcomes_of(results: Sequence[Sequence[Results]]) -> Sequence[Sequence[Outcome]]:
    """Return the outcome of each group, in pieces."""
    return [[_outcome(piece) for piece in pieces] for pieces in results]


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
