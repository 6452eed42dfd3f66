"""Serve the application with uvicorn, in one process or several."""

import asyncio
import logging
import logging.config
import os
import sys
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from service.serving import resources
from service.serving.workers import Workers, end_with_parent
from service.settings import Settings, unknown
from service.telemetry import logs, shared

logger = logging.getLogger("lossd")
KEEP_ALIVE_S = 75
"""Longer than the minute that clients and proxies usually keep idle connections, so that they close first."""
LAST_WORDS_S = 1
"""Seconds for requests that are still unfinished after draining to write a last answer."""


class Config(uvicorn.Config):
    """Uvicorn's configuration plus our settings, for number ``worker`` of ``workers``.

    ``metrics`` is the directory that workers share, if any.
    """

    def __init__(
        self, settings: Settings, workers: int = 1, worker: int = 0, metrics: Path | None = None
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        super().__init__(
            partial(_app, settings, worker),
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=workers,
            ws="none",
            proxy_headers=False,
            log_config=logs.config(settings.log_level),
            log_level=settings.log_level,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_WORDS_S,
        )

    def load(self) -> None:
        """Load the application, in the process that serves it."""
        if self.workers > 1:
            end_with_parent(self.settings.drain_s, self.metrics)
        if self.metrics is not None:
            shared.join(self.metrics)
        # imports the metrics, whose directory must be set by now
        from service.serving.connection import Connection

        self.http = cast("type[asyncio.Protocol]", partial(Connection, self.settings))
        super().load()


def serve(settings: Settings) -> None:
    """Serve until stopped by a signal."""
    resources.open_standard_files()
    logging.config.dictConfig(logs.config(settings.log_level))
    for warning in unknown(os.environ):
        logger.warning(warning)
    settings, sockets = resources.listen(resources.with_open_files(settings))
    workers = _count(settings)
    settings = settings.model_copy(update={"workers": workers})
    if workers == 1:
        uvicorn.Server(Config(settings)).run(sockets)
        return
    with shared.directory() as metrics:
        processes = Workers(
            [Config(settings, workers, worker, metrics) for worker in range(workers)], sockets
        )
        processes.run()
    if processes.failed:
        sys.exit(STARTUP_FAILURE)


def _count(settings: Settings) -> int:
    """Return the number of worker processes; by default one for each GPU."""
    if settings.workers is not None:
        return settings.workers
    # imports torch, which a process that only supervises workers does not need otherwise
    from service.app import workers

    return workers(settings.device)


def _app(settings: Settings, worker: int) -> ASGIApp:
    """Create the application; the process is prepared for its imports first."""
    from service.app import serving

    return serving(settings, worker)
