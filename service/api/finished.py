"""A request and its answer, as metrics, logs and traces see them once both are over."""

import re
from typing import NamedTuple

from service.api.stages import Stages

CLIENT_GONE = 499
"""The status of what nobody was left to answer, as nginx counts it."""
OTHER = "other"
STREAM = "/v1/batch ndjson"
"""The route of a stream, whose durations are its client's, not ours."""
EVALUATIONS = frozenset(
    {
        "/v1/losses/{name}",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
    }
)
"""Routes whose POST evaluates one loss."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Routes that machines ask every few seconds: there are no spans of them, nor lines where they succeed."""
BY_STATUS = {413: "size", 429: "queue", 503: "unavailable", 504: "deadline"}
"""Why a status was given, where whoever refused has not said it in ``stages.rejected``."""
REASONS = (
    *BY_STATUS.values(),
    "key",
    "rate",
    "concurrency",
    "bytes",
    "connections",
    "headers",
    "stalled",
    "broken",
)
"""Why requests are refused."""
_PLAIN = frozenset(
    {
        "/v1/batch",
        "/v1/limits",
        "/v1/losses",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/stats",
        "/v2/repository/index",
    }
)
_LOSS = "/v1/losses/"
_MODEL = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?(/(?:infer|ready|config|stats))?")
_REPOSITORY = re.compile(r"/v2/repository/models/[^/]+(/(?:load|unload))")


class Finished(NamedTuple):
    """What is known of a request when it is over. Durations are in seconds, its end is in seconds since 1970."""

    method: str
    path: bytes
    route: str
    status: int
    ended: float
    seconds: float
    bytes_in: int
    bytes_out: int
    stages: Stages
    traceparent: bytes
    tracestate: bytes

    @property
    def client_left(self) -> bool:
        """Whether nobody was left to answer."""
        return self.status == CLIENT_GONE

    @property
    def is_probe(self) -> bool:
        """Whether a machine asks this every few seconds."""
        return self.route in PROBES

    @property
    def rejected(self) -> str:
        """Why it was refused, if it was; a probe that is told "not yet" is no work refused."""
        return self.stages.rejected or ("" if self.is_probe else BY_STATUS.get(self.status, ""))

    @property
    def loss(self) -> str:
        """The loss's name, `unknown` where a loss was asked for that there is not, else nothing.

        Nothing also where a request was refused before its loss was looked up.
        """
        return self.stages.loss or ("unknown" if self.route in EVALUATIONS and self.status == 404 else "")


def route_of(path: str, media: bytes) -> str:
    """Return the route of a request; there are few, whatever clients make up."""
    return STREAM if path == "/v1/batch" and b"x-ndjson" in media.lower() else template(path)


def template(path: str) -> str:
    """Return the route that a path is of.

    >>> template("/v1/losses/huber"), template("/v2/models/mse/infer"), template("/wp-login.php")
    ('/v1/losses/{name}', '/v2/models/{model}/infer', 'other')
    """
    if path in _PLAIN:
        return path
    if path.startswith(_LOSS):
        return f"{_LOSS}{{name}}"
    if model := _MODEL.fullmatch(path):
        return f"/v2/models/{{model}}{'/versions/{version}' if model[1] else ''}{model[2] or ''}"
    if repository := _REPOSITORY.fullmatch(path):
        return f"/v2/repository/models/{{model}}{repository[1]}"
    return OTHER
