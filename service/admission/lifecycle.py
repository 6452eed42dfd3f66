"""The server's state between start and end: readiness, draining, failure."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from types import FrameType

from service.admission.account import Account
from service.engine.device import FAILED
from service.problems import Unavailable

logger = logging.getLogger("lossd")
GRACE_S = 4.0
"""Seconds for the shutdown itself, after the time for draining is over."""
LOOK_S = 0.02
STARTUP_FAILURE = 3
"""Exit status of a server that cannot start, and would not on a second try; uvicorn's."""
DEVICE_FAILURE = 70
"""Exit status of a server whose device has failed; `EX_SOFTWARE` of sysexits.h."""


class Lifecycle:
    """Whether the server is ``warm``, ``draining`` or has ``failed``. It ends after the active requests of the account.

    ``end`` ends the process with a status once the server has failed.
    """

    def __init__(self, account: Account, end: Callable[[int], object] = lambda status: None) -> None:
        self.warm = False
        self.draining = False
        self.failed = False
        self._account = account
        self._end_process = end
        self._failing = threading.Lock()

    @property
    def closing(self) -> bool:
        """Whether new work is refused."""
        return self.draining or self.failed

    def refuse_unready(self) -> None:
        """Raise if traffic should go elsewhere.

        Raises:
            Unavailable: the server is warming up or draining, or its device has failed.
        """
        self.refuse_failed()
        if self.draining:
            raise Unavailable(
                "The server is shutting down and only finishes requests it has already accepted."
            )
        if not self.warm:
            raise Unavailable("The device is still warming up.")

    def refuse_failed(self) -> None:
        """Raise if the server has failed.

        Raises:
            Unavailable: its device has failed.
        """
        if self.failed:
            raise Unavailable(FAILED)

    def fail(self, reason: str, status: int) -> None:
        """End the process, from any thread; active requests are answered first, within `GRACE_S`."""
        with self._failing:
            if self.failed:
                return
            self.failed = True
        logger.critical("%s: exiting with status %s", reason, status)
        threading.Thread(target=self._end_failed, args=(status,), name="end", daemon=True).start()

    def _end_failed(self, status: int) -> None:
        """Wait for active requests, then end the process, even if the event loop is stuck."""
        until = monotonic() + GRACE_S
        while self._account.active and monotonic() < until:
            sleep(LOOK_S)
        self._end_process(status)

    @contextmanager
    def drained_on_sigterm(self, most_s: float) -> Generator[None]:
        """On SIGTERM, stop once all active requests have finished, or after ``most_s``; on a second one, at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, end = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        def on_sigterm(signum: int, frame: FrameType | None) -> None:
            if self.draining:
                logger.warning("second SIGTERM: cutting off %s requests", self._account.active)
                os._exit(0)
            self.draining = True
            _end_within(most_s + GRACE_S)
            loop.call_soon_threadsafe(lambda: loop.create_task(self._drain(most_s, end)))

        signal.signal(signal.SIGTERM, on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, end)

    async def _drain(self, most_s: float, end: object) -> None:
        """Wait until nothing is active, then stop the server."""
        logger.info("draining: waiting for %s requests", self._account.active)
        until = monotonic() + most_s
        while self._account.active and monotonic() < until:
            await asyncio.sleep(LOOK_S)
        if self._account.active:
            logger.warning(
                "%s requests did not finish within %g s (LOSSD_DRAIN_S)", self._account.active, most_s
            )
        if callable(end):
            end(signal.SIGTERM, None)


def _end_within(seconds: float) -> None:
    """Exit the process after some seconds, even if threads are still computing or the loop is blocked."""
    last = threading.Timer(seconds, os._exit, (0,))
    last.daemon = True
    last.start()
