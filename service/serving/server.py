"""How the service is served: by uvicorn, in one process or several."""

from typing import Any

import uvicorn

from service.serving.workers import Workers
from service.settings import Settings

KEEP_ALIVE_S = 75
"""Longer than the minute for which clients and proxies keep idle connections, so that they close first."""
LAST_WORDS_S = 1
"""Seconds that requests which a drained server has not finished have for their last words."""


def serve(settings: Settings, log_config: dict[str, Any]) -> None:
    """Serve until told to stop."""
    config = uvicorn.Config(
        "service.app:serving",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="service.serving.protocol:Protocol",
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
