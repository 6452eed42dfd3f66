"""The history of a request: the time of each stage, its ID, its key, its loss.

Routes and middleware fill it in; the ``Server-Timing`` header, metrics, logs and traces read it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter


class Stages:
    """Durations of a request's stages in seconds; 0 for stages it did not go through."""

    def __init__(self) -> None:
        self.start = perf_counter()
        self.seconds = {"decode": 0.0, "queue": 0.0, "compute": 0.0, "encode": 0.0}
        self.began: dict[str, float] = {}
        self.request_id = ""
        self.trace_id = ""
        self.loss = ""
        self.key = ""
        self.rejected = ""

    @contextmanager
    def measure(self, stage: str) -> Generator[None]:
        """Add the duration of a ``with`` to a stage."""
        start = self.began[stage] = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += perf_counter() - start

    def header(self) -> bytes:
        """Return the header's value, in milliseconds."""
        shown = [b"%s;dur=%.3f" % (stage.encode(), 1e3 * seconds) for stage, seconds in self.seconds.items()]
        return b", ".join([*shown, b"total;dur=%.3f" % (1e3 * (perf_counter() - self.start))])
