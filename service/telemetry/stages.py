"""What a request went through: how long each stage took, whose it was, which loss it was about.

Routes and middleware note it where they know it; the ``Server-Timing`` header, metrics, logs and traces tell it.
"""

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class Stages:
    """Durations in seconds of the stages every answer names; those that did not happen took none."""

    def __init__(self) -> None:
        self.start = perf_counter()
        self.seconds = {"decode": 0.0, "queue": 0.0, "compute": 0.0, "encode": 0.0}
        self.began: dict[str, float] = {}
        self.request_id = ""
        self.trace_id = ""
        self.loss = ""
        self.key = ""
        self.rejected = ""

    def measure(self, stage: str, step: Callable[[], T]) -> T:
        """Do a step, and add the time that it takes to a stage."""
        start = self.began[stage] = perf_counter()
        try:
            return step()
        finally:
            self.seconds[stage] += perf_counter() - start

    def header(self) -> bytes:
        """Return the header's value, in milliseconds."""
        shown = [b"%s;dur=%.3f" % (stage.encode(), 1e3 * seconds) for stage, seconds in self.seconds.items()]
        return b", ".join([*shown, b"total;dur=%.3f" % (1e3 * (perf_counter() - self.start))])
