"""Metrics over HTTP: the list, the entry of each, and POST /v1/metrics/{name}."""

from functools import cache

import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope

from service.admission import query
from service.admission.content import Content, cacheable
from service.catalogue.metric import AnyMetric
from service.catalogue.registry import MetricCatalogue
from service.catalogue.search import search
from service.doors.coded import begin, json_answer
from service.doors.evaluation import find_declared
from service.doors.front import Answer
from service.doors.losses import chosen_task
from service.doors.pipeline import Pipeline, Steps
from service.engine import cost
from service.engine.measure import Measurement, Measures, measure
from service.problems import TooLarge
from service.settings import Settings
from service.wire import describe_metric
from service.wire.metrics import decode_metric, metric_parts


class Measurements:
    """Answers requests for one metric."""

    def __init__(self, catalogue: MetricCatalogue, settings: Settings, pipeline: Pipeline) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.pipeline = pipeline

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request."""
        metric = find_declared(self.catalogue, scope["state"]["match"].parameters["name"])
        scope["state"]["stages"].loss = metric.name
        work = await begin(self.pipeline, scope, receive, self.settings)
        device, headers = self.pipeline.queue.device, scope["state"]["headers"]

        def decode() -> Measurement:
            asked = decode_metric(metric, work.held.pop())
            refuse_excess(asked.work, self.settings.max_work)
            return asked

        def encode(asked: Measurement, result: Measures) -> Answer:
            return json_answer(metric_parts(asked, *result), headers)

        steps = Steps(
            decode,
            lambda asked: cost.computing(asked.work),
            lambda asked: measure(asked, device),
            lambda asked: None,
            encode,
        )
        return await self.pipeline.apart(work, steps)


def refuse_excess(work: int, most: int) -> None:
    """Refuse work over the limit.

    Raises:
        TooLarge: it is.
    """
    if work > most:
        raise TooLarge(f"Expected at most {most} units of work (LOSSD_MAX_WORK); got {work}.")


def metric_catalogue_routes(catalogue: MetricCatalogue) -> APIRouter:
    """Return the routes of the catalogue of metrics."""
    routes = APIRouter()

    # not a coroutine, so it runs in a thread: search and compression would block the event loop
    @routes.api_route("/v1/metrics", methods=["GET", "HEAD"])
    def list_metrics(request: Request) -> Response:
        asked = query.read_query(request.scope, "task", "q")
        found = search(catalogue, chosen_task(catalogue, asked.get("task")), asked.get("q"))
        briefs = [describe_metric.brief_metric(metric) for metric in found]
        return cacheable(request, Content(orjson.dumps({"metrics": briefs})))

    @cache
    def entry(metric: AnyMetric) -> Content:
        return Content(orjson.dumps(describe_metric.metric_entry(metric)))

    async def show_metric(request: Request) -> Response:
        query.read_query(request.scope)
        return cacheable(request, entry(find_declared(catalogue, request.path_params["name"])))

    routes.add_route("/v1/metrics/{name}", show_metric)
    return routes
