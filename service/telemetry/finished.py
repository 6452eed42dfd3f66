"""The record of a finished request, as metrics, logs and traces read it."""

from typing import NamedTuple

from service.routes import Route
from service.telemetry.stages import CLIENT_GONE, Stages

BY_STATUS = {413: "size", 429: "queue", 503: "unavailable", 504: "deadline"}
"""Reasons of refusals by status, where ``stages.rejected`` gives none."""
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
"""Reasons for which requests are refused."""


class Finished(NamedTuple):
    """The record of a finished request. Durations are in seconds, ``ended`` is in seconds since 1970."""

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
        """Whether the client left before the answer."""
        return self.status == CLIENT_GONE

    @property
    def rejected(self) -> str:
        """Why it was refused, or an empty text; a probe answered "not ready" does not count."""
        return self.stages.rejected or ("" if self.route.probe else BY_STATUS.get(self.status, ""))

    @property
    def loss(self) -> str:
        """The name of the loss or metric, `unknown` if there is none of the name asked for, an empty text if none is.

        It is empty too if the request was refused before the name was looked up.
        """
        return self.stages.loss or ("unknown" if self.route.named and self.status == 404 else "")
