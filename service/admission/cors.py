"""Let pages of other origins call from browsers, where the settings name some."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.wire.inference.inputs import HEADER

SENT = (
    "Authorization",
    "Content-Type",
    HEADER,
    "Request-Timeout",
    "X-API-Key",
    "X-Request-ID",
    "traceparent",
    "tracestate",
)
READ = (HEADER, "Retry-After", "Server-Timing", "X-Request-ID")


def allow_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """Let the origins call, which have commas between them; a preflight needs no key."""
    names = [name.strip() for name in origins.split(",") if name.strip()]
    if not names:
        return app
    return CORSMiddleware(
        app,
        allow_origins=names,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=SENT,
        expose_headers=READ,
        max_age=3600,
    )
