"""Put the parts together: catalogue, settings, device, routes. Nothing else knows them all."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI
from starlette.types import ASGIApp

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
from service.document import openapi
from service.doors import losses, models, operations
from service.doors.evaluation import Evaluations
from service.doors.inference import Inferences
from service.engine import device as devices
from service.engine.memory import keep_freed_memory
from service.engine.queue import Queue
from service.losses import CATALOGUE
from service.settings import Settings
from service.telemetry import metrics, traces
from service.telemetry.recorder import Recorder
from service.telemetry.statistics import ModelStatistics
from service.wire.params import params_model

logger = logging.getLogger("lossd")


def create_app(settings: Settings | None = None, catalogue: Catalogue = CATALOGUE) -> ASGIApp:
    """Assemble the application: evaluations are answered in front of the framework, all else by it.

    Raises:
        ValueError: what the settings name does not exist, be it a device, a file of keys or an exporter.
    """
    settings = settings or Settings()
    device = devices.choose(settings.device)
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    cores = os.cpu_count() or 1
    queue = Queue(
        device,
        capacity=settings.max_queue,
        threads=cores if device.type == "cpu" else 1,
        max_work=settings.max_work,
        fuse=settings.fuse,
    )
    keys = KeyFile(settings.api_keys_file) if settings.api_keys_file else None
    account = Account(settings.max_inflight_bytes)
    recorder = Recorder(queue, lambda: account.bytes, traces.from_environment())
    metrics.watch(queue, VERSION)
    pool = ThreadPoolExecutor(max_workers=cores, thread_name_prefix="wire")
    lifecycle = Lifecycle(broken=lambda: queue.broken)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        warming = loop.run_in_executor(pool, _warm_up, device, catalogue)
        warming.add_done_callback(lambda done: setattr(lifecycle, "warm", done.exception() is None))
        sampling = loop.create_task(recorder.keep_sampling())
        told = f"keys: {keys.count}" if keys is not None else "no keys"
        logger.info("starting on %s, port %s, device %s, %s", settings.host, settings.port, device, told)
        warn_if_open(settings)
        with lifecycle.drained_on_sigterm(settings.drain_s):
            # the server uses them before there is a request, and after its answer
            yield {"gate": gate, "account": account}
        sampling.cancel()
        await loop.run_in_executor(None, recorder.close)
        pool.shutdown(wait=True)
        queue.close()

    app = FastAPI(
        title="lossd",
        description="Loss values, per-element losses and exact gradients over HTTP.",
        version=VERSION,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
    )
    statistics = {name: ModelStatistics() for name in catalogue}
    answer_problems(app)
    app.include_router(losses.router(catalogue))
    app.include_router(operations.router(lifecycle, settings))
    app.include_router(models.router(lifecycle, catalogue, statistics))
    app.include_router(metrics.router(recorder.sample, settings.workers))
    app.include_router(openapi.router(catalogue))
    inferences = Inferences(app, catalogue, settings, queue, pool, statistics)
    evaluations = Evaluations(inferences, catalogue, settings, queue, pool)
    gate = Gate(evaluations, lifecycle, queue, recorder)
    served: ASGIApp = gate
    if keys is not None:
        served = Access(served, keys, settings)
    return RequestContext(allow_origins(served, settings.cors_origins), account, recorder)


def _warm_up(device: torch.device, catalogue: Catalogue) -> None:
    """Do what first requests would wait for, and take what stays for good out of the garbage collector's way."""
    devices.warm_up(device, list(catalogue.values()))
    for loss in catalogue.values():
        params_model(loss)
    gc.collect()
    gc.freeze()
