"""CORS: let browser pages from other origins call, if the settings name any."""

import re
from urllib.parse import urlsplit

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


SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
PORTS = {"http": 80, "https": 443}
"""Default ports, which browsers leave out of origins."""


def allow_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """Allow a comma-separated list of origins; preflight requests need no key.

    Raises:
        ValueError: an entry is not an origin.
    """
    if not (names := parse(origins)):
        return app
    return CORSMiddleware(
        app,
        allow_origins=names,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=SENT,
        expose_headers=READ,
        max_age=3600,
    )


def parse(origins: str) -> list[str]:
    """Return origins as browsers write them: lower case, no trailing slash, no default port.

    >>> parse("https://App.example/, http://localhost:3000, https://b.example:443")
    ['https://app.example', 'http://localhost:3000', 'https://b.example']

    Raises:
        ValueError: an entry is not an origin and would never match.
    """
    return [_origin(name.strip()) for name in origins.split(",") if name.strip()]


def _origin(name: str) -> str:
    """Normalise one origin; ``*`` means any, ``null`` is sent by pages without an origin."""
    if name in ("*", "null"):
        return name
    expected = "LOSSD_CORS_ORIGINS: Expected origins such as https://app.example, separated by commas, or *"
    try:
        parts = urlsplit(name.removesuffix("/").lower())
        scheme, host, port = parts.scheme, parts.netloc.rpartition("@")[2], parts.port
    except ValueError:
        raise ValueError(f"{expected}; got {name!r}.") from None
    host = host.removesuffix(f":{port}") if port is not None else host
    if not (SCHEME.fullmatch(scheme) and HOST.fullmatch(host)) or parts.username is not None:
        raise ValueError(f"{expected}; got {name!r}.")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"{expected}; got {name!r}: an origin has no path.")
    return f"{scheme}://{host}" + ("" if port in (None, PORTS.get(scheme)) else f":{port}")
