"""Let pages of other origins call from browsers, where the settings name some."""

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
"""The ports that browsers leave out."""


def allow_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """Let the origins call, which have commas between them; a preflight needs no key.

    Raises:
        ValueError: one of them is no origin.
    """
    if not (names := parse_origin(origins)):
        return app
    return CORSMiddleware(
        app,
        allow_origins=names,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=SENT,
        expose_headers=READ,
        max_age=3600,
    )


def parse_origin(origins: str) -> list[str]:
    """Return origins as browsers write them: in lower case, without a slash at the end or a scheme's own port.

    >>> parse_origin("https://App.example/, http://localhost:3000, https://b.example:443")
    ['https://app.example', 'http://localhost:3000', 'https://b.example']

    Raises:
        ValueError: one of them is no origin, and would match no page.
    """
    return [_origin(name.strip()) for name in origins.split(",") if name.strip()]


def _origin(name: str) -> str:
    """Return one origin; ``*`` is any, and ``null`` what a page without an origin sends."""
    if name in ("*", "null"):
        return name
    expected = "LOSSD_CORS_ORIGINS: Expected origins such as https://app.example, with commas between, or *"
    try:
        parts = urlsplit(name.removesuffix("/").lower())
        scheme, host, port = parts.scheme, parts.netloc.rpartition("@")[2], parts.port
    except ValueError:
        raise ValueError(f"{expected}; got {name!r}.") from None
    host = host.removesuffix(f":{port}") if port is not None else host
    if not (SCHEME.fullmatch(scheme) and HOST.fullmatch(host)) or parts.username is not None:
        raise ValueError(f"{expected}; got {name!r}.")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"{expected}; got {name!r}, which is more than an origin: no path belongs to one.")
    return f"{scheme}://{host}" + ("" if port in (None, PORTS.get(scheme)) else f":{port}")
