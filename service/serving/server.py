"""Serve the application with uvicorn, in one process or several."""

import asyncio
import logging
import logging.config
import os
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from starlette.types import ASGIApp

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
    """Uvicorn's configuration plus our settings; workers get a copy. ``metrics`` is their shared directory, if any."""

    def __init__(self, settings: Settings, metrics: Path | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        super().__init__(
            partial(_app, settings),
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
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
    if settings.workers == 1:
        uvicorn.Server(Config(settings)).run(sockets)
        return
    with shared.directory() as metrics:
        Workers(Config(settings, metrics), sockets).run()


def _app(settings: Settings) -> ASGIApp:
    """Create the application; the process is prepared for its imports first."""
    from service.app import serving

    return serving(settings)
