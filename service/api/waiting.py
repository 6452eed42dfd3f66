"""Wait for the queue on a client's behalf: not beyond its deadline, and not once it has left."""

import asyncio
from typing import TypeVar

from starlette.types import Receive

from service.problems import Late

T = TypeVar("T")
PATIENCE_S = 0.02
"""How long to wait before looking whether the client is still there: most answers are there by then."""


class ClientGone(Exception):
    """Nobody is left to answer."""


async def wait(future: asyncio.Future[T], receive: Receive, deadline: float) -> T:
    """Return what a future gives.

    Raises:
        Late: it is not there within ``deadline`` seconds.
        ClientGone: the client has closed its connection.
    """
    # the loop computes small jobs when all that was ready has had its turn
    for _ in range(2):
        if future.done():
            return future.result()
        await asyncio.sleep(0)
    if not future.done():
        await asyncio.wait({future}, timeout=min(PATIENCE_S, deadline))
    if not future.done():
        await _wait_longer(future, receive, deadline - PATIENCE_S, deadline)
    return future.result()


async def _wait_longer(future: asyncio.Future[T], receive: Receive, left: float, deadline: float) -> None:
    """Wait for a future, the deadline, or the client's leaving, whichever comes first."""
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({future, leaving}, timeout=max(0, left), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            future.cancel()
            if leaving.done():
                raise ClientGone
            raise Late(f"Expected an answer within {deadline:g} s (LOSSD_DEADLINE_S).")
    finally:
        leaving.cancel()


async def _left(receive: Receive) -> None:
    """Return once the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
