"""CORS: let browser pages from other origins call, if the settings name any."""

import re
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.admission import problems
from service.problems import Fault, ForeignOrigin, pointer, quoted
from service.settings import variable
from service.wire.inference.inputs import HEADER

SENT = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    HEADER,
    "Request-Timeout",
    "X-API-Key",
    "X-Request-ID",
    "traceparent",
    "tracestate",
)
READ = (HEADER, "ETag", "Retry-After", "Server-Timing", "X-Request-ID")


SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
PORTS = {"http": 80, "https": 443}
"""Default ports, which browsers leave out of origins."""


def allow_origins(origins: str) -> "Origins | None":
    """Return what allows a comma-separated list of origins; None if that is empty.

    Raises:
        ValueError: an entry is not an origin.
    """
    if not (names := parse_origin(origins)):
        return None
    return Origins(
        _no_application,
        allow_origins=names,
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=SENT,
        expose_headers=READ,
        max_age=3600,
    )


async def _no_application(scope: Scope, receive: Receive, send: Send) -> None:
    """Never called: `Origins` is no middleware, but is asked by `Front`."""
    raise AssertionError


class Origins(CORSMiddleware):
    """Starlette's rules for requests from other origins; a refused preflight is answered with a problem."""

    def preflight(self, scope: Scope) -> Response | None:
        """Return the answer to a preflight request, which needs no key; None for other requests."""
        headers = scope["state"]["headers"]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return self.preflight_response(Headers(scope=scope))
        return None

    def allowing(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that lets a page of an allowed origin read the answer."""
        return partial(self.send, send=send, request_headers=Headers(scope=scope))

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name not in ("content-length", "content-type")
        }
        return problems.response(ForeignOrigin(*self._faults(request_headers)), "/", headers)

    def _faults(self, sent: Headers) -> Iterator[Fault]:
        """Yield a fault for each part of a preflight that is not allowed."""
        origin, method = sent["origin"], sent["access-control-request-method"]
        if not self.is_allowed_origin(origin):
            detail = f"Expected an origin in {variable('cors_origins')}; got {quoted(origin)}."
            yield Fault(pointer("headers", "Origin"), "origin", detail)
        if method not in self.allow_methods:
            detail = f"Expected {', '.join(self.allow_methods)}; got {quoted(method)}."
            yield Fault(pointer("headers", "Access-Control-Request-Method"), "method", detail)
        names = sent.get("access-control-request-headers", "").split(",")
        for name in (name.strip() for name in names):
            if name and name.lower() not in self.allow_headers:
                detail = f"Expected one of {', '.join(SENT)}; got {quoted(name)}."
                yield Fault(pointer("headers", "Access-Control-Request-Headers"), "header", detail)


def parse_origin(origins: str) -> list[str]:
    """Return origins as browsers write them: lower case, no trailing slash, no default port.

    >>> parse_origin("https://App.example/, http://localhost:3000, https://b.example:443")
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
