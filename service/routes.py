"""The table of routes. Each request is matched once; every module that needs the route reads the match."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

Door = Literal["", "evaluate", "batch", "stream", "infer", "measure", "compose", "evaluations"]
"""What answers a request: "" is the framework, the others answer in front of it."""
NDJSON = b"application/x-ndjson"


@dataclass(frozen=True, eq=False)
class Route:
    """One method of a path template. There is one object of each, so that comparing and hashing them takes no time.

    ``work`` is refused when the server is full, and finished before it ends; the duration of a ``stream`` is up to the client;
    a ``probe`` is polled by machines; ``evaluates`` means that it is about one loss.
    """

    method: str
    template: str
    door: Door = ""
    stream: bool = False
    needs_key: bool = True
    probe: bool = False

    @cached_property
    def work(self) -> bool:
        return bool(self.door)

    @cached_property
    def evaluates(self) -> bool:
        return self.door in ("evaluate", "infer")

    @cached_property
    def named(self) -> bool:
        """Whether it is about one loss or metric, whose name labels the request."""
        return self.evaluates or self.door == "measure"

    @cached_property
    def label(self) -> str:
        """The route's name in metrics, logs and traces: one of a few, whatever clients send."""
        return f"{self.template} ndjson" if self.stream else self.template


ROUTES = (
    Route("GET", "/healthz", needs_key=False, probe=True),
    Route("GET", "/readyz", needs_key=False, probe=True),
    Route("GET", "/metrics", probe=True),
    Route("GET", "/docs", needs_key=False),
    Route("GET", "/docs/{name}", needs_key=False),
    Route("GET", "/openapi.json", needs_key=False),
    Route("GET", "/v1/limits"),
    Route("GET", "/v1/losses"),
    Route("GET", "/v1/losses/{name}"),
    Route("POST", "/v1/losses/{name}", door="evaluate"),
    Route("POST", "/v1/compose", door="compose"),
    Route("GET", "/v1/metrics"),
    Route("GET", "/v1/metrics/{name}"),
    Route("POST", "/v1/metrics/{name}", door="measure"),
    Route("GET", "/v1/evaluations", door="evaluations"),
    Route("POST", "/v1/evaluations", door="evaluations"),
    Route("GET", "/v1/evaluations/{name}", door="evaluations"),
    Route("PUT", "/v1/evaluations/{name}", door="evaluations"),
    Route("DELETE", "/v1/evaluations/{name}", door="evaluations"),
    Route("PUT", "/v1/evaluations/{name}/parts/{key}", door="evaluations"),
    Route("GET", "/v1/evaluations/{name}/rows", door="evaluations"),
    Route("POST", "/v1/batch", door="stream", stream=True),
    Route("POST", "/v1/batch", door="batch"),
    Route("GET", "/v2"),
    Route("GET", "/v2/health/live", needs_key=False, probe=True),
    Route("GET", "/v2/health/ready", needs_key=False, probe=True),
    Route("GET", "/v2/models"),
    Route("GET", "/v2/models/stats"),
    Route("GET", "/v2/models/{model}"),
    Route("GET", "/v2/models/{model}/ready"),
    Route("GET", "/v2/models/{model}/config"),
    Route("GET", "/v2/models/{model}/stats"),
    Route("POST", "/v2/models/{model}/infer", door="infer"),
    Route("GET", "/v2/models/{model}/versions/{version}"),
    Route("GET", "/v2/models/{model}/versions/{version}/ready"),
    Route("GET", "/v2/models/{model}/versions/{version}/config"),
    Route("GET", "/v2/models/{model}/versions/{version}/stats"),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", door="infer"),
    Route("POST", "/v2/repository/index"),
    Route("POST", "/v2/repository/models/{model}/load"),
    Route("POST", "/v2/repository/models/{model}/unload"),
)
OTHER = Route("", "other")
"""Any path that is not in the table."""
STREAM = next(route for route in ROUTES if route.stream)


class Match(NamedTuple):
    """The route of a request, and the parameters in its path.

    If the path does not support the method, the route has no door, and ``allowed`` lists the methods it supports.
    """

    route: Route
    parameters: Mapping[str, str]
    allowed: tuple[str, ...] = ()


def match_route(method: str, path: str, media: bytes = b"") -> Match:
    """Match a request's method, decoded path and ``Content-Type`` header.

    >>> found = match_route("POST", "/v2/models/mse/infer")
    >>> found.route.template, found.parameters
    ('/v2/models/{model}/infer', {'model': 'mse'})
    >>> match_route("GET", "/wp-login.php").route.label
    'other'
    >>> match_route("DELETE", "/v1/limits").allowed
    ('GET', 'HEAD')
    """
    method = "GET" if method == "HEAD" else method
    streams = media.partition(b";")[0].strip().lower() == NDJSON
    routes, parameters = _of_path(path)
    for route in routes:
        if route.method == method and (streams or not route.stream):
            return Match(route, parameters)
    if not routes:
        return Match(OTHER, {})
    allowed = {route.method for route in routes} | {"HEAD" for route in routes if route.method == "GET"}
    return Match(_UNSUPPORTED[routes[0].template], {}, tuple(sorted(allowed)))


def _of_path(path: str) -> tuple[Sequence[Route], Mapping[str, str]]:
    """Return the routes of a path, one for each method, and its parameters."""
    if path in _PLAIN:
        return _PLAIN[path], {}
    for pattern, routes in _PATTERNS:
        if found := pattern.fullmatch(path):
            return routes, found.groupdict()
    return (), {}


def _pattern(template: str) -> re.Pattern[str]:
    """Return a pattern for the paths of a template, with a group for each parameter."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)))


_BY_TEMPLATE = {route.template: tuple(r for r in ROUTES if r.template == route.template) for route in ROUTES}
# whether a path needs a key does not depend on the method
_UNSUPPORTED = {
    template: replace(routes[0], method="", door="", stream=False)
    for template, routes in _BY_TEMPLATE.items()
}
_PLAIN = {template: routes for template, routes in _BY_TEMPLATE.items() if "{" not in template}
_PATTERNS = [
    (_pattern(template), routes) for template, routes in _BY_TEMPLATE.items() if template not in _PLAIN
]
