"""Assemble the application from catalogue, settings, device and routes. Nothing else imports them all."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan

from service import VERSION
from service.admission.access import Access, warn_if_open
from service.admission.account import Account
from service.admission.cors import allow_origins
from service.admission.gate import Gate
from service.admission.keys import KeyFile
from service.admission.lifecycle import DEVICE_FAILURE, STARTUP_FAILURE, Lifecycle
from service.admission.problems import answer_problems
from service.catalogue.registry import Catalogue, Catalogues, MetricCatalogue
from service.document import served
from service.doors import losses, models, operations
from service.doors.batch import Batches
from service.doors.compose import Compositions
from service.doors.evaluation import SingleCalls
from service.doors.evaluations import EvaluationRequests
from service.doors.front import Front
from service.doors.inference import Inferences
from service.doors.metrics import Measurements, metric_catalogue_routes
from service.doors.pipeline import Pipeline
from service.doors.stream import Streams
from service.engine import device as devices
from service.engine.call import CPU
from service.engine.composition import Planner
from service.engine.expression import Expressions
from service.engine.lane import Lane
from service.engine.memory import keep_freed_memory
from service.engine.queue import Queue
from service.evaluations.database import Database
from service.evaluations.store import Store, StoreLimits
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.pages import reference
from service.settings import Settings
from service.telemetry import traces
from service.telemetry.metrics import Metrics, metrics_routes
from service.telemetry.recorder import Recorder
from service.telemetry.statistics import ModelStatistics
from service.wire.params import params_model

logger = logging.getLogger("lossd")
DEVICE_THREADS = 2
"""Threads that use a device other than the CPU: the copies of one overlap the kernels of the other. More only wait for
the interpreter."""
SWITCH_S = 0.0005
"""Seconds after which a waiting thread requests the interpreter; Python's default is 5 ms."""


@dataclass(frozen=True)
class Parts:
    """The parts of an application, except its routes."""

    settings: Settings
    catalogue: Catalogue
    measures: MetricCatalogue
    keys: KeyFile | None
    account: Account
    lifecycle: Lifecycle
    pipeline: Pipeline
    store: Store
    metrics: Metrics
    recorder: Recorder
    statistics: dict[str, ModelStatistics]


workers = devices.workers


def serving(settings: Settings | None = None, worker: int = 0) -> ASGIApp:
    """Create an application, and configure the whole process for serving, which tests do not want."""
    settings = settings or Settings()
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    return create_app(settings, worker=worker, warmed=_freeze, end=_exit)


def create_app(
    settings: Settings | None = None,
    catalogue: Catalogue = CATALOGUE,
    measures: MetricCatalogue = METRICS,
    worker: int = 0,
    warmed: Callable[[], object] = lambda: None,
    end: Callable[[int], object] = lambda status: None,
) -> ASGIApp:
    """Create an application: evaluations are answered in front of the framework, everything else by it.

    ``worker`` is the number of the process, from 0, which selects its GPU. ``warmed`` is called after the warm-up, before
    the application reports that it is ready; ``end`` is called with an exit status when it can no longer serve.

    Raises:
        ValueError: a setting names a device, a file of keys or an exporter that does not exist.
    """
    parts = _parts(settings or Settings(), worker, catalogue, measures, end)
    settings, pipeline, state = parts.settings, parts.pipeline, dict[str, Any](account=parts.account)
    app = _framework(parts, _lifespan(parts, state, warmed))
    catalogues = Catalogues(catalogue, measures)
    planner = Planner(Expressions(settings.max_expression), settings.max_work)
    doors = {
        "evaluate": SingleCalls(catalogue, settings, pipeline).answer,
        "batch": Batches(catalogues, settings, pipeline, planner, parts.metrics).answer,
        "compose": Compositions(catalogue, settings, pipeline, planner).answer,
        "measure": Measurements(measures, settings, pipeline).answer,
        "evaluations": EvaluationRequests(settings, pipeline, parts.store, catalogues).answer,
        "infer": Inferences(catalogue, settings, pipeline, parts.statistics).answer,
    }
    gate = state["gate"] = Gate(parts.account, parts.lifecycle, parts.recorder)
    streams = Streams(catalogues, settings, pipeline, planner, parts.metrics)
    access = None if parts.keys is None else Access(parts.keys, settings)
    return Front(app, doors, streams, gate, access, allow_origins(settings.cors_origins))


def _parts(
    settings: Settings,
    worker: int,
    catalogue: Catalogue,
    measures: MetricCatalogue,
    end: Callable[[int], object],
) -> Parts:
    """Create the parts of an application."""
    account = Account(settings.max_inflight_bytes, settings.max_queue)
    lifecycle = Lifecycle(account, end)
    device, metrics = devices.choose(settings.device, worker), Metrics()
    cores = os.cpu_count() or 1
    quick, slow = Lane("quick", cores), Lane("slow", cores)
    make = partial(
        Queue,
        max_work=settings.max_work,
        fuse=settings.fuse,
        observer=metrics.observer(),
        on_failure=partial(lifecycle.fail, status=DEVICE_FAILURE),
    )
    queue = near = make(CPU, quick)
    if device.type != "cpu":
        queue = make(device, Lane("device", DEVICE_THREADS), near=near)
    metrics.describe(device, VERSION)
    return Parts(
        settings=settings,
        catalogue=catalogue,
        measures=measures,
        keys=KeyFile(settings.api_keys_file) if settings.api_keys_file else None,
        account=account,
        lifecycle=lifecycle,
        pipeline=Pipeline(queue, quick, slow),
        store=_store(settings),
        metrics=metrics,
        recorder=Recorder(queue, lambda: account.bytes, metrics, traces.from_environment()),
        statistics={name: ModelStatistics() for name in catalogue},
    )


def _store(settings: Settings) -> Store:
    """Return the store of evaluations, which opens its database on first use."""
    limits = StoreLimits(
        settings.evaluation_max_bytes, settings.evaluation_cache_bytes, settings.evaluation_max_expires_s
    )
    return Store(Database(settings.database_url, settings.data_dir), limits)


def _framework(parts: Parts, lifespan: Lifespan[FastAPI]) -> FastAPI:
    """Return the FastAPI application for the routes that it answers."""
    app = FastAPI(
        title="lossd",
        description="Loss values, per-element losses and exact gradients over HTTP.",
        version=VERSION,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
    )
    answer_problems(app)
    app.include_router(losses.catalogue_routes(parts.catalogue))
    app.include_router(metric_catalogue_routes(parts.measures))
    app.include_router(operations.operations_routes(parts.lifecycle, parts.settings))
    app.include_router(models.model_routes(parts.lifecycle, parts.catalogue, parts.statistics))
    app.include_router(
        metrics_routes(parts.metrics, parts.recorder.sample, shared=parts.settings.workers != 1)
    )
    app.include_router(served.document_routes(parts.catalogue, parts.measures))
    app.include_router(reference.reference_routes(parts.catalogue, parts.measures))
    return app


def _lifespan(parts: Parts, state: dict[str, Any], warmed: Callable[[], object]) -> Lifespan[FastAPI]:
    """Return the start and end of an application; the server receives ``state`` before the first request."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        settings, lifecycle, pipeline = parts.settings, parts.lifecycle, parts.pipeline
        loop, device = asyncio.get_running_loop(), pipeline.queue.device
        pipeline.queue.lane.run(partial(_warm_up, parts, warmed), [])
        sampling = loop.create_task(parts.recorder.keep_sampling())
        keys = f"keys: {parts.keys.count}" if parts.keys is not None else "no keys"
        logger.info("starting on %s, port %s, device %s, %s", settings.host, settings.port, device, keys)
        warn_if_open(settings)
        parts.store.start()
        with lifecycle.drained_on_sigterm(settings.drain_s):
            yield state
        sampling.cancel()
        await loop.run_in_executor(None, parts.recorder.close)
        await loop.run_in_executor(None, parts.store.close)
        pipeline.close()

    return lifespan


def _warm_up(parts: Parts, warmed: Callable[[], object]) -> None:
    """Do once what first requests would otherwise wait for; end the server if its device fails."""
    device = parts.pipeline.queue.device
    try:
        losses = list(parts.catalogue.values())
        devices.warm_up(device, losses)
        parts.pipeline.queue.near_work = devices.near_work(device, losses)
        for loss in parts.catalogue.values():
            params_model(loss)
        warmed()
    except Exception as error:
        logger.exception("the warm-up failed")
        parts.lifecycle.fail(f"{device} cannot compute the catalogue: {error}", STARTUP_FAILURE)
    else:
        parts.lifecycle.warm = True


def _exit(status: int) -> None:
    """End the process at once: cleaning up a broken CUDA context may hang."""
    logging.shutdown()
    os._exit(status)


def _freeze() -> None:
    """Exempt permanent objects from garbage collection."""
    gc.collect()
    gc.freeze()
