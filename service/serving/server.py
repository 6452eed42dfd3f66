"""How the service is served: by uvicorn, in one process or several."""

import asyncio
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.importer import import_from_string

from service.serving.connection import Connection
from service.serving.workers import Workers
from service.settings import Settings

KEEP_ALIVE_S = 75
"""Longer than the minute for which clients and proxies keep idle connections, so that they close first."""
LAST_WORDS_S = 1
"""Seconds that requests which a drained server has not finished have for their last words."""


def serve(settings: Settings, log_config: dict[str, Any]) -> None:
    """Serve until told to stop."""
    config = uvicorn.Config(
        partial(_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        # uvicorn calls it as it calls a class
        http=cast("type[asyncio.Protocol]", partial(Connection, settings)),
        ws="none",
        proxy_headers=False,
        log_config=log_config,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
    if settings.workers > 1:
        Workers(config, [config.bind_socket()]).run()
    else:
        uvicorn.Server(config).run()


def _app(settings: Settings) -> ASGIApp:
    """Make the application, in the process that serves it: only that one needs its imports."""
    return import_from_string("service.app:create_app")(settings)
