"""Wait for a result until its deadline, or until the client leaves."""

import asyncio
import math
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple, TypeVar

from starlette.types import Receive

from service.admission.body import ClientGone
from service.problems import Late, Unreadable, quoted

T = TypeVar("T")
TIMEOUT = b"request-timeout"
PATIENCE_S = 0.02
"""Seconds before the first check for a disconnect: most answers are ready by then."""


class Due(NamedTuple):
    """The deadline of an answer, ``seconds`` after the time of the monotonic clock at ``start``."""

    seconds: float
    start: float

    @property
    def left(self) -> float:
        """The seconds left."""
        return max(0.0, self.start + self.seconds - monotonic())

    def sooner(self, seconds: float | None) -> "Due":
        """Return the earlier of this deadline and one this many seconds from the same start."""
        return self if seconds is None else Due(min(seconds, self.seconds), self.start)


def deadline(headers: Mapping[bytes, bytes], most: float) -> float:
    """Return the seconds within which to answer: the client's ``Request-Timeout``, at most ``most``.

    Raises:
        Unreadable: the header is not a number of seconds.
    """
    header = headers.get(TIMEOUT)
    if header is None:
        return most
    sent = header.decode("latin-1")
    try:
        seconds = float(sent)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise Unreadable(f"Expected a positive number of seconds as Request-Timeout; got {quoted(sent)}.")
    return min(seconds, most)


async def wait(future: asyncio.Future[T], receive: Receive, due: Due) -> T:
    """Return the result of a future.

    Raises:
        Late: the deadline has passed.
        ClientGone: the client has closed its connection.
    """
    try:
        if not future.done():
            await asyncio.wait({future}, timeout=min(PATIENCE_S, due.left))
        if not future.done():
            await _wait_longer(future, receive, due)
        return future.result()
    finally:
        # signals to the worker that nobody is waiting
        future.cancel()
        # this frame is in the traceback of its exception
        del future


async def _wait_longer(future: asyncio.Future[T], receive: Receive, due: Due) -> None:
    """Wait for a future, the deadline or a disconnect, whichever comes first."""
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({future, leaving}, timeout=due.left, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            if leaving.done():
                raise ClientGone
            raise Late(f"Expected an answer within {due.seconds:g} s (LOSSD_DEADLINE_S, or Request-Timeout).")
    finally:
        leaving.cancel()


async def _left(receive: Receive) -> None:
    """Return once the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
