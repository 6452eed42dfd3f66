"""The queue between clients and the device: what is alike is computed together, and nobody waits for nothing.

A request takes a `permit` before anything of it is queued: over capacity it is refused at once. Its calls
become jobs, each with a future of its own. Whenever the device is free the oldest job is taken together with
all that are like it, up to a budget of work: an idle device never waits for company, a busy one finds it.
Jobs whose client has left are dropped when they are taken, and a failure stays with the call it belongs to.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

import torch

from service.engine.call import Call, Evaluation
from service.engine.fuse import evaluate_alike, likeness, work
from service.problems import Busy

Result = Evaluation | Exception

BUDGET = 1 << 24
"""Most `work` that is stacked at once: what fusing saves is gone long before, and memory is bounded by it."""
SMALL = 1 << 15
"""Most `work` that is computed on the event loop: a thread's hand-over would cost more than it takes."""


class Job:
    """Calls of one client that are alike; ``future`` has a result for each, whatever became of it."""

    __slots__ = ("calls", "finished", "future", "queued", "started", "work")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.work = len(calls) * work(calls[0])
        self.future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self.queued = self.started = self.finished = perf_counter()


class Queue:
    """Computes calls on a device with a few threads: one for each core, or one for a GPU."""

    def __init__(self, device: torch.device, *, capacity: int, threads: int) -> None:
        self.device = device
        self.capacity = capacity
        self.on_batch: Callable[[int], None] = lambda size: None
        self._accepted = 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="device")
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._running = 0
        self._awake = False
        self._pace = 0.01

    @contextmanager
    def permit(self) -> Generator[None]:
        """Accept a request until the body of the ``with`` is done.

        Raises:
            Busy: as many as the capacity allows are accepted and not answered; says when to come back.
        """
        if self._accepted >= self.capacity:
            raise Busy(self.capacity, max(1, math.ceil(self._accepted * self._pace)))
        self._accepted += 1
        start = perf_counter()
        try:
            yield
        finally:
            # of the seconds that this request took, its share: the others were answered meanwhile too
            share = (perf_counter() - start) / self._accepted
            self._pace += 0.05 * (share - self._pace)
            self._accepted -= 1

    def submit(self, calls: Sequence[Call]) -> list[Job]:
        """Queue calls that are alike, in pieces within the budget of work."""
        at_once = max(1, BUDGET // max(1, work(calls[0])))
        jobs = [Job(calls[start : start + at_once]) for start in range(0, len(calls), at_once)]
        self._waiting.setdefault(likeness(calls[0]), deque()).extend(jobs)
        self._wake()
        return jobs

    @property
    def depth(self) -> int:
        """How many calls wait for the device."""
        return sum(len(job.calls) for kind in self._waiting.values() for job in kind)

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown(wait=True)

    def _wake(self) -> None:
        """Look for work once everything that is ready now has had its turn: it may bring company."""
        if self._waiting and not self._awake and self._running < self._threads:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start on the oldest jobs that are alike."""
        self._awake = False
        jobs = self._take()
        if jobs:
            calls = jobs[0].calls if len(jobs) == 1 else [call for job in jobs for call in job.calls]
            self.on_batch(len(calls))
            if self.device.type == "cpu" and sum(job.work for job in jobs) <= SMALL:
                _resolve(jobs, evaluate_alike(calls, self.device))
            else:
                self._start(jobs, calls)
        self._wake()

    def _start(self, jobs: Sequence[Job], calls: Sequence[Call]) -> None:
        """Let a thread compute."""
        self._running += 1
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, evaluate_alike, calls, self.device)

        def finish(done: asyncio.Future[list[Result]]) -> None:
            self._running -= 1
            error = done.exception()
            failed = [RuntimeError(repr(error))] * len(calls)
            _resolve(jobs, done.result() if error is None else failed)
            self._wake()

        running.add_done_callback(finish)

    def _take(self) -> list[Job]:
        """Return the jobs of the first kind that fit the budget; what is left of the kind goes to the end."""
        while self._waiting:
            key = next(iter(self._waiting))
            kind = self._waiting.pop(key)
            taken: list[Job] = []
            total = 0
            while kind and (not taken or total + kind[0].work <= BUDGET):
                job = kind.popleft()
                if not job.future.done():
                    taken.append(job)
                    total += job.work
                    job.started = perf_counter()
            if kind:
                self._waiting[key] = kind
            if taken:
                return taken
        return []


def _resolve(jobs: Sequence[Job], results: Sequence[Result]) -> None:
    """Give each job its results; one whose client has left in the meantime takes none."""
    start = 0
    for job in jobs:
        job.finished = perf_counter()
        if not job.future.done():
            job.future.set_result(results[start : start + len(job.calls)])
        start += len(job.calls)
