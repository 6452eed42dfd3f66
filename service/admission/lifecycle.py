"""Where the server is between its start and its end: what readiness tells, and how the last requests finish."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from service.admission.account import Hold
from service.problems import Unavailable

logger = logging.getLogger("lossd")
GRACE_S = 4.0
"""Seconds that the server has for its end once what it has begun had its time."""
LOOK_S = 0.02


class Lifecycle:
    """``warm`` once the device is; ``draining`` once the server was told to end; ``active`` requests of work."""

    def __init__(self, broken: Callable[[], bool]) -> None:
        self.warm = False
        self.draining = False
        self.active = 0
        self._broken = broken

    def refuse_unready(self) -> None:
        """Say why traffic should go elsewhere.

        Raises:
            Unavailable: the server is warming up or draining, or its device has failed.
        """
        if self.draining:
            raise Unavailable("The server is shutting down; it only finishes what it has begun.")
        if self._broken():
            raise Unavailable("The device has failed; the server must be restarted.")
        if not self.warm:
            raise Unavailable("The device is still warming up.")

    def begin(self, hold: Hold) -> None:
        """Count a request until it has ended: the server waits for it before it ends itself.

        Raises:
            Unavailable: the server is draining.
        """
        if self.draining:
            self.refuse_unready()
        self.active += 1
        hold.at_end(self._end)

    def _end(self) -> None:
        """Count a request no more."""
        self.active -= 1

    @contextmanager
    def drained_on_sigterm(self, most_s: float) -> Generator[None]:
        """Let a first SIGTERM end the server once what is active is finished, but within ``most_s``, a second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, end = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        def told(signum: int, frame: FrameType | None) -> None:
            if self.draining:
                logger.warning("told to end a second time: %s requests are cut off", self.active)
                os._exit(0)
            self.draining = True
            _end_within(most_s + GRACE_S)
            loop.call_soon_threadsafe(lambda: loop.create_task(self._drain(most_s, end)))

        signal.signal(signal.SIGTERM, told)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, end)

    async def _drain(self, most_s: float, end: object) -> None:
        """Wait until nothing is active, then let the server end."""
        logger.info("draining: %s requests are finished first", self.active)
        until = monotonic() + most_s
        while self.active and monotonic() < until:
            await asyncio.sleep(LOOK_S)
        if self.active:
            logger.warning("%s requests are not finished within %g s (LOSSD_DRAIN_S)", self.active, most_s)
        if callable(end):
            end(signal.SIGTERM, None)


def _end_within(seconds: float) -> None:
    """End the process, whatever runs then: a thread that computes would keep it alive, and the loop may be held up."""
    last = threading.Timer(seconds, os._exit, (0,))
    last.daemon = True
    last.start()
