"""A request and its answer, as metrics, logs and traces see them once both are over."""

from typing import NamedTuple

from service.routes import Route
from service.telemetry.stages import Stages

CLIENT_GONE = 499
"""The status of what nobody was left to answer, as nginx counts it."""
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


class Finished(NamedTuple):
    """What is known of a request when it is over. Durations are in seconds, its end is in seconds since 1970."""

    method: str
    path: bytes
    route: Route
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
    def rejected(self) -> str:
        """Why it was refused, if it was; a probe that is told "not yet" is no work refused."""
        return self.stages.rejected or ("" if self.route.probe else BY_STATUS.get(self.status, ""))

    @property
    def loss(self) -> str:
        """The loss's name, `unknown` where a loss was asked for that there is not, else nothing.

        Nothing also where a request was refused before its loss was looked up.
        """
        return self.stages.loss or ("unknown" if self.route.evaluates and self.status == 404 else "")
