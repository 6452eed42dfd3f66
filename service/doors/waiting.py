"""Wait for the queue on a client's behalf: not beyond its deadline, and not once it has left."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import ParamSpec, TypeVar

from starlette.types import Receive, Scope

from service.admission.account import Hold
from service.admission.body import ClientGone
from service.engine.call import Call, Evaluation
from service.engine.evaluate import evaluate
from service.engine.queue import Job, Queue
from service.problems import Late, Unreadable, quoted
from service.telemetry.stages import Stages

T = TypeVar("T")
P = ParamSpec("P")
PATIENCE_S = 0.02
"""How long to wait before looking whether the client is still there: most answers are there by then."""


class Due:
    """When an answer is due: ``seconds`` from now on."""

    def __init__(self, seconds: float, start: float | None = None) -> None:
        self.seconds = seconds
        self._start = monotonic() if start is None else start

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._start + self.seconds - monotonic())

    def sooner(self, seconds: float | None) -> "Due":
        """Return when it is due if it is within so many seconds of the start, too."""
        return self if seconds is None else Due(min(seconds, self.seconds), self._start)


def deadline(scope: Scope, most: float) -> float:
    """Return the seconds within which to answer: the client's ``Request-Timeout``, but ``most`` at the most.

    Raises:
        Unreadable: the header is no number of seconds.
    """
    header: bytes | None = dict(scope["headers"]).get(b"request-timeout")
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


def in_thread(
    pool: ThreadPoolExecutor, hold: Hold, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]:
    """Let a thread work, which uses a hold until it is done, whoever waits for it."""
    loop = asyncio.get_running_loop()
    hold.use()
    running = pool.submit(work, *args, **kwargs)
    running.add_done_callback(lambda done: loop.call_soon_threadsafe(hold.leave))
    return asyncio.wrap_future(running)


async def wait(future: asyncio.Future[T], receive: Receive, due: Due) -> T:
    """Return what a future gives.

    Raises:
        Late: it is not there when it is due.
        ClientGone: the client has closed its connection.
    """
    # the loop computes small jobs when all that was ready has had its turn
    for _ in range(2):
        if future.done():
            return future.result()
        await asyncio.sleep(0)
    if not future.done():
        await asyncio.wait({future}, timeout=min(PATIENCE_S, due.left))
    if not future.done():
        await _wait_longer(future, receive, due)
    return future.result()


async def compute(
    queue: Queue, call: Call, hold: Hold, receive: Receive, due: Due, stages: Stages
) -> tuple[Evaluation, Job]:
    """Let the queue compute a call; return what came of it, and how it was done.

    Raises:
        TooLarge: its work is over the limit, or it needs more memory than the device has.
        Late: it is not computed when it is due.
        ClientGone: the client has closed its connection.
    """
    job = queue.submit(call, hold)
    [result] = await wait(job.future, receive, due)
    stages.seconds["queue"] = job.started - job.queued
    stages.seconds["compute"] = job.finished - job.started
    if not isinstance(result, Evaluation):
        raise result
    return result, job


def compute_here(queue: Queue, call: Call, stages: Stages) -> Evaluation:
    """Compute a large call in the thread that has read it: nothing is gained by company, and a hand-over saved.

    Raises:
        TooLarge: its work is over the limit, or it needs more memory than the device has.
    """
    queue.admit(call)
    with stages.measure("compute"):
        return evaluate(call, queue.device)


async def _wait_longer(future: asyncio.Future[T], receive: Receive, due: Due) -> None:
    """Wait for a future, the deadline, or the client's leaving, whichever comes first."""
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({future, leaving}, timeout=due.left, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            future.cancel()
            if leaving.done():
                raise ClientGone
            raise Late(f"Expected an answer within {due.seconds:g} s (LOSSD_DEADLINE_S, or Request-Timeout).")
    finally:
        leaving.cancel()


async def _left(receive: Receive) -> None:
    """Return once the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
