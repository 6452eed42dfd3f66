"""Prometheus metrics at /metrics, correct with several workers, with labels of bounded cardinality.

With several workers, ``PROMETHEUS_MULTIPROC_DIR`` is set; each worker keeps its values in files there, and whichever is
scraped adds them up. Gauges cover live workers only. The queue's and the device's are sampled once a second and at each
scrape.
"""

import os
from collections import Counter as Tally
from collections.abc import Callable, Sequence
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
from service.engine.stack import Evaluations
from service.problems import Problem, Unavailable
from service.routes import Route
from service.telemetry import logs
from service.telemetry.finished import REASONS, Finished
from service.telemetry.shared import DIRECTORY
from service.wire.batch import NONE_APART, Apart, Batch, Outcome

PATH = "/metrics"
COMPOSED = "compose"
"""The name under which compositions are counted as items."""
SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
STAGES = ("decode", "queue", "compute", "encode")


class Family(NamedTuple):
    """A metric as the documentation lists it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS = (
    Family(
        "lossd_requests_total",
        "counter",
        ("route", "loss", "status"),
        "Requests answered; status 499 means that the client left first.",
    ),
    Family(
        "lossd_request_duration_seconds",
        "histogram",
        ("route", "stage"),
        "Time by stage (decode, queue, compute, encode) and in total, including uploads.",
    ),
    Family(
        "lossd_items_total",
        "counter",
        ("loss", "status"),
        "Items evaluated, alone, in a batch or in a stream, with the status that a request would have.",
    ),
    Family("lossd_batch_size", "histogram", (), "Calls computed together as one."),
    Family("lossd_queue_depth", "gauge", (), "Calls waiting for the device."),
    Family(
        "lossd_inflight_bytes",
        "gauge",
        (),
        "Bytes held by requests, including answers that are not sent yet.",
    ),
    Family("lossd_rejected_total", "counter", ("reason",), f"Requests refused: {', '.join(REASONS)}."),
    Family("lossd_key_requests_total", "counter", ("key", "status"), "Requests by the name of their key."),
    Family("lossd_nonfinite_total", "counter", ("loss",), "Answers with an infinite or NaN element."),
    Family(
        "lossd_device_memory_bytes",
        "gauge",
        ("device", "kind"),
        "Memory in use: resident on a CPU; allocated and reserved on a GPU, and pinned on its host.",
    ),
    Family("lossd_device_memory_capacity_bytes", "gauge", ("device",), "Total memory of the device."),
    Family("lossd_oom_total", "counter", (), "Calls that did not fit into the device's memory."),
    Family(
        "lossd_log_lines_dropped_total",
        "counter",
        (),
        "Log lines dropped because standard output was not read.",
    ),
    Family(
        "lossd_build_info",
        "gauge",
        ("version", "torch", "device"),
        "Always 1; the labels give the versions and the device.",
    ),
)
_BY_NAME = {metric.name: metric for metric in METRICS}
# prometheus_client has one switch for all registries of the process
disable_created_metrics()


def metrics_table() -> str:
    """Return the metrics as a table for the documentation."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.meaning} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows])


class Series(NamedTuple):
    """The counters of one route, loss and status, looked up once."""

    counts: tuple[Callable[[], None], ...]
    durations: tuple[Callable[[float], None], ...]


class Metrics:
    """The metrics of one application; if workers share a directory, all applications of a process write the same files."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("lossd_requests_total")
        self.durations = self._histogram("lossd_request_duration_seconds", SECONDS)
        self.items = self._counter("lossd_items_total")
        self.batch_size = self._histogram("lossd_batch_size", SIZES)
        self.queue_depth = self._gauge("lossd_queue_depth")
        self.inflight_bytes = self._gauge("lossd_inflight_bytes")
        self.rejected = self._counter("lossd_rejected_total")
        self.key_requests = self._counter("lossd_key_requests_total")
        self.nonfinite = self._counter("lossd_nonfinite_total")
        self.device_memory = self._gauge("lossd_device_memory_bytes")
        self.device_capacity = self._gauge("lossd_device_memory_capacity_bytes", of_largest=True)
        self.oom = self._counter("lossd_oom_total")
        self.log_dropped = self._counter("lossd_log_lines_dropped_total")
        self.build = self._gauge("lossd_build_info", of_largest=True)
        self._series: dict[tuple[Route, str, int], Series] = {}
        self._dropped = logs.OUTPUT.dropped
        for reason in REASONS:
            self.rejected.labels(reason)

    def _counter(self, name: str) -> Counter:
        """Declare a counter."""
        return Counter(name, _BY_NAME[name].meaning, _BY_NAME[name].labels, registry=self.registry)

    def _gauge(self, name: str, *, of_largest: bool = False) -> Gauge:
        """Declare a gauge; over the live workers it is their sum, or the largest value."""
        metric, mode = _BY_NAME[name], "livemax" if of_largest else "livesum"
        return Gauge(name, metric.meaning, metric.labels, registry=self.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, buckets: Sequence[float]) -> Histogram:
        """Declare a histogram."""
        metric = _BY_NAME[name]
        return Histogram(name, metric.meaning, metric.labels, registry=self.registry, buckets=buckets)

    def observer(self) -> Observer:
        """Return the observer that counts events of the engine and of wire."""
        return Observer(self.batch_size.observe, self.oom.inc, lambda loss: self.nonfinite.labels(loss).inc())

    def describe(self, device: torch.device, version: str) -> None:
        """Set the versions and the device."""
        self.device_capacity.labels(str(device)).set(memory.capacity(device))
        self.build.labels(version, torch.__version__, str(device)).set(1)

    def text(self) -> bytes:
        """Return all metrics, of all workers, in the text format 0.0.4."""
        directory = os.environ.get(DIRECTORY)
        if directory is None:
            return generate_latest(self.registry)
        _forget_dead(Path(directory))
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, directory)
        return generate_latest(together)

    def sample(self, queue: Queue, inflight_bytes: int) -> None:
        """Read gauges that change without an event."""
        self.inflight_bytes.set(inflight_bytes)
        self.queue_depth.set(queue.depth)
        before, self._dropped = self._dropped, logs.OUTPUT.dropped
        self.log_dropped.inc(self._dropped - before)
        for kind, size in memory.used(queue.device).items():
            self.device_memory.labels(str(queue.device), kind).set(size)

    def count_request(self, finished: Finished) -> None:
        """Count a finished request."""
        status, loss, rejected = finished.status, finished.loss, finished.rejected
        series = self._series_of(finished.route, loss, status)
        for count in series.counts:
            count()
        total, *stages = series.durations
        total(finished.seconds)
        for observe, seconds in zip(stages, finished.stages.seconds.values(), strict=True):
            if seconds:
                observe(seconds)
        if finished.stages.key:
            self.key_requests.labels(finished.stages.key, status).inc()
        if rejected:
            self.rejected.labels(rejected).inc()

    def _series_of(self, route: Route, loss: str, status: int) -> Series:
        """Look up the counters of a request."""
        if found := self._series.get((route, loss, status)):
            return found
        counts = [self.requests.labels(route.label, loss, status).inc]
        if loss and route.evaluates:
            counts.append(self.items.labels(loss, status).inc)
        durations = [self.durations.labels(route.label, stage).observe for stage in ("total", *STAGES)]
        made = self._series[route, loss, status] = Series(tuple(counts), tuple(durations))
        return made

    def record_shed(self, route: str, reason: str, count: int) -> None:
        """Count requests that were refused before they were parsed."""
        self.requests.labels(route, "", "429").inc(count)
        self.rejected.labels(reason).inc(count)

    def count_items(
        self, asked: Batch, outcomes: Sequence[Sequence[Outcome]], apart: Apart = NONE_APART
    ) -> None:
        """Count the items of a batch, or of a window of a stream."""
        tally = Tally(("unknown", problem.status) for problem in asked.problems.values())
        for group, pieces in zip(asked.groups, outcomes, strict=True):
            name = group.like.loss.name
            for outcome in pieces:
                if isinstance(outcome, Evaluations):
                    tally[name, 200] += len(outcome)
                else:
                    tally.update((name, _status(result)) for result in outcome)
        for place, found in apart.items():
            measured = asked.measurements.get(place)
            name = COMPOSED if measured is None else measured.metric.name
            tally[name, found.status if isinstance(found, Problem) else 200] += 1
        for (loss, status), count in tally.items():
            self.items.labels(loss, status).inc(count)


def metrics_routes(metrics: Metrics, update: Callable[[], None], shared: bool) -> APIRouter:
    """Return the route for Prometheus; ``update`` brings the metrics up to date. Workers may have ``shared`` ones."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route(PATH, methods=["GET", "HEAD"])
    async def scrape() -> Response:
        if shared and DIRECTORY not in os.environ:
            raise Unavailable("The workers have no shared directory for their metrics; see the log.")
        update()
        return Response(await run_in_threadpool(metrics.text), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


def _status(result: Evaluation | Problem) -> int:
    """Return the status that an item would have as a request."""
    return result.status if isinstance(result, Problem) else 200


def _forget_dead(directory: Path) -> None:
    """Remove the gauges of workers that have ended; their counters stay."""
    for file in directory.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
