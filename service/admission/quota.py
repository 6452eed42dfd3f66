"""Limits of one key in one worker: requests a second, and concurrent requests."""

import math
import time
from collections.abc import Callable

from service.problems import Throttled


class Quota:
    """A token bucket that holds one second's worth, and a count of running requests."""

    def __init__(self) -> None:
        self._tokens = math.inf
        self._filled = time.monotonic()
        self._running = 0
        self._pace = 0.01

    def admit(self, rate: float, concurrency: int) -> Callable[[], None]:
        """Admit a request and return a callback for its end; a limit of 0 means unlimited.

        Raises:
            Throttled: a limit is exceeded; says when to retry.
        """
        if concurrency and self._running >= concurrency:
            wait = max(1, math.ceil(self._pace))
            raise Throttled("concurrency", f"{concurrency} requests at once", wait)
        if rate:
            self._take(rate)
        self._running += 1
        start = time.monotonic()

        def end() -> None:
            self._running -= 1
            self._pace += 0.05 * (time.monotonic() - start - self._pace)

        return end

    def _take(self, rate: float) -> None:
        """Take a token, if there is one."""
        now = time.monotonic()
        full = max(1.0, rate)
        self._tokens = min(full, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            wait = max(1, math.ceil((1 - self._tokens) / rate))
            raise Throttled("rate", f"{rate:g} requests a second", wait)
        self._tokens -= 1
