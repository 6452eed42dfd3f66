"""Let pages of other origins call from browsers, where the settings name some."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

SENT = (
    "Authorization",
    "Content-Type",
    "Request-Timeout",
    "X-API-Key",
    "X-Request-ID",
    "traceparent",
    "tracestate",
)
READ = ("Retry-After", "Server-Timing", "X-Request-ID")


def allow_origins(app: FastAPI, origins: str) -> None:
    """Let the origins call, which have commas between them; a preflight needs no key."""
    names = [name.strip() for name in origins.split(",") if name.strip()]
    if names:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=names,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=SENT,
            expose_headers=READ,
            max_age=3600,
        )
