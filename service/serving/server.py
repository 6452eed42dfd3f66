"""How the service is served: by uvicorn, in one process or several."""

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
"""Longer than the minute for which clients and proxies keep idle connections, so that they close first."""
LAST_WORDS_S = 1
"""Seconds that requests which a drained server has not finished have for their last words."""


class Config(uvicorn.Config):
    """What uvicorn is told, and the settings; workers get a copy. ``metrics`` is where they keep theirs, if anywhere."""

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
            log_config=logs.logging_config(settings.log_level),
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
        # it imports what keeps metrics
        from service.serving.connection import Connection

        self.http = cast("type[asyncio.Protocol]", partial(Connection, self.settings))
        super().load()


def serve(settings: Settings) -> None:
    """Serve until told to stop."""
    resources.open_standard_files()
    logging.config.dictConfig(logs.logging_config(settings.log_level))
    for warning in unknown(os.environ):
        logger.warning(warning)
    settings, sockets = resources.listen(resources.with_open_files(settings))
    if settings.workers == 1:
        uvicorn.Server(Config(settings)).run(sockets)
        return
    with shared.directory() as metrics:
        Workers(Config(settings, metrics), sockets).run()


def _app(settings: Settings) -> ASGIApp:
    """Make the application, once the process that serves it is prepared for its imports."""
    from service.app import serving

    return serving(settings)
