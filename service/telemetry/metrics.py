"""Prometheus metrics at /metrics, correct with several workers, with labels of bounded cardinality.

With several workers, ``PROMETHEUS_MULTIPROC_DIR`` is set; each worker keeps its values in files there, and whichever is
scraped adds them up. Gauges cover live workers only. The queue's and the device's are sampled once a second and at each
scrape.
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


class Metric(NamedTuple):
    """A metric as the documentation lists it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS: list[Metric] = []


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    """Declare a counter."""
    METRICS.append(Metric(name, "counter", labels, meaning))
    return Counter(name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str, of_largest: bool = False) -> Gauge:
    """Declare a gauge; over the live workers it is their sum, or the largest value."""
    METRICS.append(Metric(name, "gauge", labels, meaning))
    mode = "livemax" if of_largest else "livesum"
    return Gauge(name, meaning, labels, registry=REGISTRY, multiprocess_mode=mode)


def _histogram(name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    """Declare a histogram."""
    METRICS.append(Metric(name, "histogram", labels, meaning))
    return Histogram(name, meaning, labels, registry=REGISTRY, buckets=buckets)


disable_created_metrics()
REQUESTS = _counter(
    "lossd_requests_total",
    "Requests answered; status 499 means that the client left first.",
    "route",
    "loss",
    "status",
)
DURATIONS = _histogram(
    "lossd_request_duration_seconds",
    "Time by stage (decode, queue, compute, encode) and in total, including uploads.",
    "route",
    "stage",
    buckets=SECONDS,
)
ITEMS = _counter(
    "lossd_items_total",
    "Items evaluated, alone, in a batch or in a stream, with the status that a request would have.",
    "loss",
    "status",
)
BATCH_SIZE = _histogram("lossd_batch_size", "Calls computed together as one.", buckets=SIZES)
QUEUE_DEPTH = _gauge("lossd_queue_depth", "Calls waiting for the device.")
INFLIGHT_BYTES = _gauge(
    "lossd_inflight_bytes", "Bytes held by requests, including answers that are not sent yet."
)
REJECTED = _counter(
    "lossd_rejected_total",
    f"Requests refused: {', '.join(REASONS)}.",
    "reason",
)
KEY_REQUESTS = _counter("lossd_key_requests_total", "Requests by the name of their key.", "key", "status")
NONFINITE = _counter("lossd_nonfinite_total", "Answers with an infinite or NaN element.", "loss")
DEVICE_MEMORY = _gauge(
    "lossd_device_memory_bytes",
    "Memory in use: resident on a CPU; allocated and reserved on a GPU, and pinned on its host.",
    "device",
    "kind",
)
DEVICE_CAPACITY = _gauge(
    "lossd_device_memory_capacity_bytes", "Total memory of the device.", "device", of_largest=True
)
OOM = _counter("lossd_oom_total", "Calls that did not fit into the device's memory.")
LOG_DROPPED = _counter(
    "lossd_log_lines_dropped_total", "Log lines dropped because standard output was not read."
)
BUILD = _gauge(
    "lossd_build_info",
    "Always 1; the labels give the versions and the device.",
    "version",
    "torch",
    "device",
    of_largest=True,
)
for _reason in REASONS:
    REJECTED.labels(_reason)


def as_markdown() -> str:
    """Return the metrics as a table for the documentation."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.meaning} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows])


def observer() -> Observer:
    """Return the observer that counts events of the engine and of wire."""
    return Observer(BATCH_SIZE.observe, OOM.inc, lambda loss: NONFINITE.labels(loss).inc())


def describe(device: torch.device, version: str) -> None:
    """Set the versions and the device."""
    DEVICE_CAPACITY.labels(str(device)).set(memory.capacity(device))
    BUILD.labels(version, torch.__version__, str(device)).set(1)


def router(update: Callable[[], None], shared: bool) -> APIRouter:
    """Return the route for Prometheus; ``update`` brings the metrics up to date. Workers may have ``shared`` ones."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route(PATH, methods=["GET", "HEAD"])
    async def scrape() -> Response:
        if shared and DIRECTORY not in os.environ:
            raise Unavailable("The workers have no shared directory for their metrics; see the log.")
        update()
        return Response(await run_in_threadpool(text), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


def text() -> bytes:
    """Return all metrics, of all workers, in the text format 0.0.4."""
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return generate_latest(_alone())
    _forget_dead(Path(directory))
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together, directory)
    return generate_latest(together)


def sample(queue: Queue, inflight_bytes: int) -> None:
    """Read gauges that change without an event."""
    INFLIGHT_BYTES.set(inflight_bytes)
    QUEUE_DEPTH.set(queue.depth)
    LOG_DROPPED.inc(logs.OUTPUT.count_dropped())
    for kind, size in memory.used(queue.device).items():
        DEVICE_MEMORY.labels(str(queue.device), kind).set(size)


def record(finished: Finished) -> None:
    """Count a finished request."""
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
    """Count requests that were refused before they were parsed."""
    REQUESTS.labels(route, "", "429").inc(count)
    REJECTED.labels(reason).inc(count)


def count_items(asked: Batch, outcomes: Sequence[Sequence[Outcome]]) -> None:
    """Count the items of a batch, or of a window of a stream."""
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
    """Return the status that an item would have as a request."""
    return result.status if isinstance(result, Problem) else 200


class Series(NamedTuple):
    """The counters of one route, loss and status, looked up once."""

    counts: tuple[Callable[[], None], ...]
    durations: tuple[Callable[[float], None], ...]


@cache
def _series(route: Route, loss: str, status: int) -> Series:
    """Look up the counters of a request."""
    counts = [REQUESTS.labels(route.label, loss, status).inc]
    if loss and route.evaluates:
        counts.append(ITEMS.labels(loss, status).inc)
    stages = ("total", "decode", "queue", "compute", "encode")
    return Series(tuple(counts), tuple(DURATIONS.labels(route.label, stage).observe for stage in stages))


@cache
def _key_requests(key: str, status: int) -> Counter:
    """Look up the counter of a key."""
    return KEY_REQUESTS.labels(key, status)


@cache
def _alone() -> CollectorRegistry:
    """Return a registry for a single process, with the metrics of the process itself."""
    ProcessCollector(registry=REGISTRY)
    return REGISTRY


def _forget_dead(directory: Path) -> None:
    """Remove the gauges of workers that have ended; their counters stay."""
    for file in directory.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
