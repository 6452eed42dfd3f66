"""The queue between clients and the device: what is alike is computed together, and nobody waits for nothing.

A request takes a `permit` before anything of it is queued: over capacity it is refused at once. Its calls
become jobs, each with a future of its own. Whenever the device is free the oldest job is taken together with
all that are like it, up to a budget of work: an idle device never waits for company, a busy one finds it.
Jobs whose client has left are dropped when they are taken, and a failure stays with the call it belongs to.
"""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Generator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import torch

from service.engine.call import Call, Evaluation
from service.engine.fuse import BUDGET, evaluate_alike, likeness, work
from service.problems import Busy

Result = Evaluation | Exception

SMALL = 1 << 15
"""Most `work` that is computed on the event loop: a thread's hand-over would cost more than it takes."""


@dataclass(eq=False, slots=True)
class Job:
    """Calls that are alike, of one client."""

    calls: Sequence[Call]
    work: int
    future: "asyncio.Future[list[Result]]"


class Queue:
    """Computes calls on a device with a few threads: one for each core, or one for a GPU."""

    def __init__(self, device: torch.device, *, capacity: int, threads: int) -> None:
        self.device = device
        self.capacity = capacity
        self.accepted = 0
        """Requests that have been accepted and not been answered."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="device")
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._running = 0
        self._awake = False
        self._seconds = 0.01

    @contextmanager
    def permit(self) -> Generator[None]:
        """Accept a request until the body of the ``with`` is done.

        Raises:
            Busy: there are as many as the capacity allows; says when to come back.
        """
        if self.accepted >= self.capacity:
            raise Busy(self.capacity, max(1, math.ceil(self.accepted * self._seconds / self._threads)))
        self.accepted += 1
        start = monotonic()
        try:
            yield
        finally:
            self.accepted -= 1
            # what one request takes of the device's time when all wait for each other, averaged over some
            share = (monotonic() - start) * self._threads / (self.accepted + 1)
            self._seconds += 0.05 * (share - self._seconds)

    async def evaluate(self, calls: Sequence[Call]) -> list[Result]:
        """Compute calls; each gives its evaluation, or what it raised. Cancelling drops what still waits."""
        places = _alike(calls)
        jobs = [self._enqueue(key, [calls[place] for place in group]) for key, group in places]
        try:
            done = [await job.future for job in jobs]
        except asyncio.CancelledError:
            for job in jobs:
                job.future.cancel()
            raise
        results: list[Result] = [AssertionError()] * len(calls)
        for (_, group), answers in zip(places, done, strict=True):
            for place, answer in zip(group, answers, strict=True):
                results[place] = answer
        return results

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown(wait=True)

    def _enqueue(self, key: Hashable, calls: Sequence[Call]) -> Job:
        """Let a job wait for the device."""
        job = Job(calls, len(calls) * work(calls[0]), asyncio.get_running_loop().create_future())
        self._waiting.setdefault(key, deque()).append(job)
        self._wake()
        return job

    def _wake(self) -> None:
        """Look for work once everything that is ready now has had its turn: it may bring company."""
        if not self._awake and self._running < self._threads:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start on the oldest jobs that are alike."""
        self._awake = False
        jobs = self._take()
        if not jobs:
            return
        calls = [call for job in jobs for call in job.calls]
        if self.device.type == "cpu" and sum(job.work for job in jobs) <= SMALL:
            _resolve(jobs, evaluate_alike(calls, self.device))
        else:
            self._running += 1
            running = asyncio.get_running_loop().run_in_executor(
                self._pool, evaluate_alike, calls, self.device
            )
            running.add_done_callback(lambda done: self._finish(jobs, done))
        if self._waiting:
            self._wake()

    def _take(self) -> list[Job]:
        """Return the first kind's jobs within the budget; what is left of that kind goes to the end."""
        while self._waiting:
            key, kind = next(iter(self._waiting.items()))
            del self._waiting[key]
            taken: list[Job] = []
            total = 0
            while kind and (not taken or total + kind[0].work <= BUDGET):
                job = kind.popleft()
                if not job.future.done():
                    taken.append(job)
                    total += job.work
            if kind:
                self._waiting[key] = kind
            if taken:
                return taken
        return []

    def _finish(self, jobs: Sequence[Job], done: "asyncio.Future[list[Result]]") -> None:
        """Hand out what a thread has computed, and look for more."""
        self._running -= 1
        error = done.exception()
        count = sum(len(job.calls) for job in jobs)
        _resolve(jobs, done.result() if error is None else [RuntimeError(repr(error))] * count)
        if self._waiting:
            self._wake()


def _alike(calls: Sequence[Call]) -> list[tuple[Hashable, list[int]]]:
    """Return the places of calls that are alike, in pieces within the budget."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, call in enumerate(calls):
        groups[likeness(call)].append(place)
    pieces: list[tuple[Hashable, list[int]]] = []
    for key, places in groups.items():
        size = max(1, BUDGET // max(1, work(calls[places[0]])))
        pieces += [(key, places[start : start + size]) for start in range(0, len(places), size)]
    return pieces


def _resolve(jobs: Sequence[Job], results: Sequence[Result]) -> None:
    """Give each job its results; one whose client has left in the meantime takes none."""
    start = 0
    for job in jobs:
        if not job.future.done():
            job.future.set_result(list(results[start : start + len(job.calls)]))
        start += len(job.calls)
