"""Wait for the queue on a client's behalf: not beyond its deadline, and not once it has left."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from starlette.types import Receive

from service.engine.queue import Job, Result
from service.problems import Late

PATIENCE_S = 0.02
"""How long to wait before looking whether the client is still there: most answers are there by then."""


class ClientGone(Exception):
    """Nobody is left to answer."""


async def wait(job: Job, receive: Receive, deadline: float) -> Sequence[Result]:
    """Return a job's results.

    Raises:
        Late: they are not there within ``deadline`` seconds since the job was queued.
        ClientGone: the client has closed its connection.
    """
    if not job.future.done():
        await asyncio.wait({job.future}, timeout=min(PATIENCE_S, deadline))
    if not job.future.done():
        await _wait_longer(job, receive, deadline)
    return job.future.result()


async def _wait_longer(job: Job, receive: Receive, deadline: float) -> None:
    """Wait for a job, the deadline, or the client's leaving, whichever comes first."""
    leaving = asyncio.ensure_future(_left(receive))
    try:
        left = deadline - (perf_counter() - job.queued)
        await asyncio.wait({job.future, leaving}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not job.future.done():
            job.future.cancel()
            if leaving.done():
                raise ClientGone
            raise Late(f"Expected an answer within {deadline:g} s (LOSSD_DEADLINE_S, Request-Timeout).")
    finally:
        leaving.cancel()


async def _left(receive: Receive) -> None:
    """Return once the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
