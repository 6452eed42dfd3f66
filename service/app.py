"""Put the parts together: catalogue, settings, device, routes. Nothing else knows them all."""

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
from service.admission.context import RequestContext
from service.admission.cors import allow_origins
from service.admission.gate import Gate
from service.admission.keys import KeyFile
from service.admission.lifecycle import Lifecycle
from service.admission.problems import answer_problems
from service.catalogue.registry import Catalogue
from service.document import served
from service.doors import losses, models, operations
from service.doors.batch import Batches
from service.doors.evaluation import Evaluations
from service.doors.front import Front
from service.doors.inference import Inferences
from service.doors.pipeline import Pipeline
from service.doors.stream import Streams
from service.engine import device as devices
from service.engine.lane import Lane
from service.engine.memory import keep_freed_memory
from service.engine.queue import Queue
from service.losses import CATALOGUE
from service.settings import Settings
from service.telemetry import metrics, traces
from service.telemetry.recorder import Recorder
from service.telemetry.statistics import ModelStatistics
from service.wire.params import params_model

logger = logging.getLogger("lossd")
SWITCH_S = 0.0005
"""Seconds after which a thread that waits for the interpreter asks for it, instead of 5 ms."""


@dataclass(frozen=True)
class Parts:
    """What an application is made of, beside its routes."""

    settings: Settings
    catalogue: Catalogue
    keys: KeyFile | None
    account: Account
    lifecycle: Lifecycle
    pipeline: Pipeline
    recorder: Recorder
    statistics: dict[str, ModelStatistics]


def serving(settings: Settings | None = None) -> ASGIApp:
    """Set the process up to serve, which tests and others that make an application do not want, and make one."""
    settings = settings or Settings()
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    return create_app(settings, warmed=_freeze)


def create_app(
    settings: Settings | None = None,
    catalogue: Catalogue = CATALOGUE,
    warmed: Callable[[], object] = lambda: None,
) -> ASGIApp:
    """Assemble an application: evaluations are answered in front of the framework, all else by it.

    ``warmed`` is called once it is warm, before it is ready.

    Raises:
        ValueError: what the settings name does not exist, be it a device, a file of keys or an exporter.
    """
    parts = _parts(settings or Settings(), catalogue)
    settings, pipeline, state = parts.settings, parts.pipeline, dict[str, Any](account=parts.account)
    app = _framework(parts, _lifespan(parts, state, warmed))
    doors = {
        "evaluate": Evaluations(catalogue, settings, pipeline).answer,
        "batch": Batches(catalogue, settings, pipeline).answer,
        "infer": Inferences(catalogue, settings, pipeline, parts.statistics).answer,
    }
    front = Front(app, doors, Streams(catalogue, settings, pipeline))
    served: ASGIApp = Gate(front, parts.lifecycle, pipeline.queue, parts.recorder)
    state["gate"] = served
    if parts.keys is not None:
        served = Access(served, parts.keys, settings)
    return RequestContext(allow_origins(served, settings.cors_origins), parts.account, parts.recorder)


def _parts(settings: Settings, catalogue: Catalogue) -> Parts:
    """Make what an application is made of."""
    device = devices.choose(settings.device)
    cores = os.cpu_count() or 1
    quick, slow = Lane("quick", cores), Lane("slow", cores)
    queue = Queue(
        device,
        quick if device.type == "cpu" else Lane("device", 1),
        capacity=settings.max_queue,
        max_work=settings.max_work,
        fuse=settings.fuse,
        observer=metrics.observer(),
    )
    metrics.describe(device, VERSION)
    account = Account(settings.max_inflight_bytes)
    return Parts(
        settings=settings,
        catalogue=catalogue,
        keys=KeyFile(settings.api_keys_file) if settings.api_keys_file else None,
        account=account,
        lifecycle=Lifecycle(broken=lambda: queue.broken),
        pipeline=Pipeline(queue, quick, slow),
        recorder=Recorder(queue, lambda: account.bytes, traces.from_environment()),
        statistics={name: ModelStatistics() for name in catalogue},
    )


def _framework(parts: Parts, lifespan: Lifespan[FastAPI]) -> FastAPI:
    """Return the routes that the framework answers."""
    app = FastAPI(
        title="lossd",
        description="Loss values, per-element losses and exact gradients over HTTP.",
        version=VERSION,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
    )
    answer_problems(app)
    app.include_router(losses.router(parts.catalogue))
    app.include_router(operations.router(parts.lifecycle, parts.settings))
    app.include_router(models.router(parts.lifecycle, parts.catalogue, parts.statistics))
    app.include_router(metrics.router(parts.recorder.sample, parts.settings.workers))
    app.include_router(served.router(parts.catalogue))
    return app


def _lifespan(parts: Parts, state: dict[str, Any], warmed: Callable[[], object]) -> Lifespan[FastAPI]:
    """Return how an application starts and ends; the server has ``state`` before there is a request."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        settings, lifecycle, pipeline = parts.settings, parts.lifecycle, parts.pipeline
        loop, device = asyncio.get_running_loop(), pipeline.queue.device
        warming = pipeline.queue.lane.run(partial(_warm_up, device, parts.catalogue, warmed), [])
        warming.add_done_callback(lambda done: setattr(lifecycle, "warm", done.exception() is None))
        sampling = loop.create_task(parts.recorder.keep_sampling())
        keys = f"keys: {parts.keys.count}" if parts.keys is not None else "no keys"
        logger.info("starting on %s, port %s, device %s, %s", settings.host, settings.port, device, keys)
        warn_if_open(settings)
        with lifecycle.drained_on_sigterm(settings.drain_s):
            yield state
        sampling.cancel()
        await loop.run_in_executor(None, parts.recorder.close)
        pipeline.close()

    return lifespan


def _warm_up(device: torch.device, catalogue: Catalogue, warmed: Callable[[], object]) -> None:
    """Do what first requests would wait for."""
    devices.warm_up(device, list(catalogue.values()))
    for loss in catalogue.values():
        params_model(loss)
    warmed()


def _freeze() -> None:
    """Take what stays for good out of the garbage collector's way."""
    gc.collect()
    gc.freeze()
