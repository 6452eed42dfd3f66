"""Prometheus metrics at /metrics, right over several workers, with labels that no client can multiply.

With ``PROMETHEUS_MULTIPROC_DIR`` set, which several workers do for themselves, each worker keeps its numbers in files there, and whichever is asked adds them up. Gauges are of the workers that live; what they show of queue
and device is taken once a second, and when asked.
"""

import os
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.concurrency import run_in_threadpool

from service.engine import memory
from service.engine.call import Evaluation
from service.engine.observer import Observer
from service.engine.queue import Queue
from service.engine.stack import Evaluations, Stack
from service.problems import Problem, Unavailable
from service.routes import Route
from service.telemetry import logs
from service.telemetry.finished import REASONS, Finished
from service.telemetry.shared import DIRECTORY
from service.wire.batch import Batch, Outcome

PATH = "/metrics"
SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
REGISTRY = CollectorRegistry()


class Told(NamedTuple):
    """A metric as the documentation tells it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS: list[Told] = []


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    """Declare a counter."""
    METRICS.append(Told(name, "counter", labels, meaning))
    return Counter(name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str, of_largest: bool = False) -> Gauge:
    """Declare a gauge: over the workers that live their sum, or the largest."""
    METRICS.append(Told(name, "gauge", labels, meaning))
    mode = "livemax" if of_largest else "livesum"
    return Gauge(name, meaning, labels, registry=REGISTRY, multiprocess_mode=mode)


def _histogram(name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    """Declare a histogram."""
    METRICS.append(Told(name, "histogram", labels, meaning))
    return Histogram(name, meaning, labels, registry=REGISTRY, buckets=buckets)


disable_created_metrics()
REQUESTS = _counter(
    "lossd_requests_total",
    "Requests answered; status 499 where the client left first.",
    "route",
    "loss",
    "status",
)
DURATIONS = _histogram(
    "lossd_request_duration_seconds",
    "Time by stage (decode, queue, compute, encode) and in total, uploads included.",
    "route",
    "stage",
    buckets=SECONDS,
)
ITEMS = _counter(
    "lossd_items_total",
    "Items evaluated, alone, in a batch or in a stream; status as of a request.",
    "loss",
    "status",
)
BATCH_SIZE = _histogram("lossd_batch_size", "Calls that were computed together as one.", buckets=SIZES)
QUEUE_DEPTH = _gauge("lossd_queue_depth", "Calls that wait for the device.")
INFLIGHT_BYTES = _gauge(
    "lossd_inflight_bytes", "Bytes that requests hold, answers that have not left among them."
)
REJECTED = _counter(
    "lossd_rejected_total",
    f"Requests refused: {', '.join(REASONS)}.",
    "reason",
)
KEY_REQUESTS = _counter("lossd_key_requests_total", "Requests by the name of their key.", "key", "status")
NONFINITE = _counter("lossd_nonfinite_total", "Answers with an element that is infinite or NaN.", "loss")
DEVICE_MEMORY = _gauge(
    "lossd_device_memory_bytes",
    "Memory in use: resident on a CPU; allocated and reserved on a GPU, pinned on its host.",
    "device",
    "kind",
)
DEVICE_CAPACITY = _gauge(
    "lossd_device_memory_capacity_bytes", "Memory that the device has.", "device", of_largest=True
)
OOM = _counter("lossd_oom_total", "Calls that the device's memory could not hold.")
LOG_DROPPED = _counter(
    "lossd_log_lines_dropped_total", "Lines of the log that were dropped, as standard output was not read."
)
BUILD = _gauge(
    "lossd_build_info", "Always 1; the labels tell what runs.", "version", "torch", "device", of_largest=True
)
for _reason in REASONS:
    REJECTED.labels(_reason)


def as_markdown() -> str:
    """Return the metrics as the table that the documentation shows."""
    rows = [
        f"| `{told.name}` | {told.kind} | {', '.join(f'`{label}`' for label in told.labels)} | {told.meaning} |"
        for told in METRICS
    ]
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows])


def observer() -> Observer:
    """Return what counts what only engine and wire see."""
    return Observer(BATCH_SIZE.observe, OOM.inc, lambda loss: NONFINITE.labels(loss).inc())


def describe(device: torch.device, version: str) -> None:
    """Note what runs, and on what."""
    DEVICE_CAPACITY.labels(str(device)).set(memory.capacity(device))
    BUILD.labels(version, torch.__version__, str(device)).set(1)


def router(update: Callable[[], None], shared: bool) -> APIRouter:
    """Return the route that Prometheus asks; ``update`` brings the metrics up to date, which workers may share."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route(PATH, methods=["GET", "HEAD"])
    async def scrape() -> Response:
        if shared and DIRECTORY not in os.environ:
            raise Unavailable("The workers have no directory to share their metrics in; the log says why.")
        update()
        return Response(await run_in_threadpool(text), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


def text() -> bytes:
    """Return all metrics in the text format 0.0.4, of all workers where there are several."""
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return generate_latest(_alone())
    _forget_dead(Path(directory))
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together, directory)
    return generate_latest(together)


def sample(queue: Queue, inflight_bytes: int) -> None:
    """Read off what only shows when it is looked at."""
    INFLIGHT_BYTES.set(inflight_bytes)
    QUEUE_DEPTH.set(queue.depth)
    LOG_DROPPED.inc(logs.OUTPUT.count_dropped())
    for kind, size in memory.used(queue.device).items():
        DEVICE_MEMORY.labels(str(queue.device), kind).set(size)


def record(finished: Finished) -> None:
    """Count a request that is over."""
    status = finished.status
    series = _series(finished.route, finished.loss, status)
    for count in series.counts:
        count()
    total, *stages = series.durations
    total(finished.seconds)
    for observe, seconds in zip(stages, finished.stages.seconds.values(), strict=True):
        if seconds:
            observe(seconds)
    if finished.stages.key:
        _key_requests(finished.stages.key, status).inc()
    if finished.rejected:
        REJECTED.labels(finished.rejected).inc()


def record_shed(route: str, reason: str, count: int) -> None:
    """Count requests that were refused before they were looked at."""
    REQUESTS.labels(route, "", "429").inc(count)
    REJECTED.labels(reason).inc(count)


def count_items(asked: Batch, outcomes: Sequence[Sequence[Outcome]]) -> None:
    """Count the items of a batch, or of a part of a stream."""
    tally = Tally(("unknown", problem.status) for problem in asked.problems.values())
    for group, pieces in zip(asked.groups, outcomes, strict=True):
        call = group.part.like if isinstance(group.part, Stack) else group.part
        for outcome in pieces:
            if isinstance(outcome, Evaluations):
                tally[call.loss.name, 200] += len(outcome)
            else:
                tally.update((call.loss.name, _status(result)) for result in outcome)
    for (loss, status), count in tally.items():
        ITEMS.labels(loss, status).inc(count)


def _status(result: Evaluation | Problem) -> int:
    """Return what an item's answer would have as its status, were it a request."""
    return result.status if isinstance(result, Problem) else 200


class Series(NamedTuple):
    """What a request of one route, loss and status is counted in, looked up once."""

    counts: tuple[Callable[[], None], ...]
    durations: tuple[Callable[[float], None], ...]


@cache
def _series(route: Route, loss: str, status: int) -> Series:
    """Look up what a request is counted in."""
    counts = [REQUESTS.labels(route.label, loss, status).inc]
    if loss and route.evaluates:
        counts.append(ITEMS.labels(loss, status).inc)
    stages = ("total", "decode", "queue", "compute", "encode")
    return Series(tuple(counts), tuple(DURATIONS.labels(route.label, stage).observe for stage in stages))


@cache
def _key_requests(key: str, status: int) -> Counter:
    """Look up what a key's request is counted in."""
    return KEY_REQUESTS.labels(key, status)


@cache
def _alone() -> CollectorRegistry:
    """Return the metrics of a single process, with those of the process itself."""
    ProcessCollector(registry=REGISTRY)
    return REGISTRY


def _forget_dead(directory: Path) -> None:
    """Drop the gauges of workers that have ended; what they counted stays."""
    for file in directory.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
