"""The queue between clients and the device: what is alike is computed together, and nobody waits for nothing.

A request takes a `permit` before anything of it is queued: over capacity it is refused at once. Its calls
become jobs, each with a future of its own. Whenever the device is free the oldest job is taken together with
all that are like it, up to a budget of work: an idle device never waits for company, a busy one finds it.
Jobs whose client has left are dropped when they are taken, and a failure stays with the call it belongs to.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Protocol

import torch

from service.engine.call import Call, Evaluation
from service.engine.fuse import Results, evaluate_alike, likeness
from service.engine.stack import Part, Stack
from service.problems import Busy, Fault, TooLarge

BUDGET = 1 << 20
"""Most `work` that is stacked at once: what fusing saves is gone long before, and memory is bounded by it."""
SMALL = 1 << 13
"""Most `work` that is computed on the event loop: a thread's hand-over would cost more than it takes."""


class Entry(Protocol):
    """What is kept open while a job is worked on, such as the account's entry of its request."""

    def use(self) -> None: ...
    def leave(self) -> None: ...


class Job:
    """What one client wants of a loss; ``future`` has a result for each call, whatever became of it.

    ``together`` is how many calls were computed as one with them, ``leads`` whether these were the first.
    """

    __slots__ = (
        "count",
        "finished",
        "future",
        "hold",
        "leads",
        "part",
        "queued",
        "started",
        "together",
        "work",
    )

    def __init__(self, part: Part, hold: "Entry") -> None:
        self.part = part
        self.hold = hold
        hold.use()
        self.count = len(part) if isinstance(part, Stack) else 1
        self.work = self.count * (part.like if isinstance(part, Stack) else part).work
        self.future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        self.queued = self.started = self.finished = perf_counter()
        self.together, self.leads = self.count, True


class Queue:
    """Computes calls on a device with a few threads: one for each core, or one for a GPU.

    ``broken`` is set once the device has failed in a way that no later call of this process can survive. Without
    ``fuse`` each call is computed alone, and gives the same bits whatever is computed beside it.
    """

    def __init__(
        self, device: torch.device, *, capacity: int, threads: int, max_work: int, fuse: bool = True
    ) -> None:
        self.device = device
        self.capacity = capacity
        self.max_work = max_work
        self.fuse = fuse
        self.broken = False
        self.on_batch: Callable[[int], None] = lambda size: None
        self._accepted = 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="device")
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._running = 0
        self._awake = False
        self._pace = 0.01

    def permit(self) -> Callable[[], None]:
        """Accept a request, and return what to call when it has ended.

        Raises:
            Busy: as many as the capacity allows are accepted and not answered; says when to come back.
        """
        self.refuse_if_full()
        self._accepted += 1
        start = perf_counter()

        def end() -> None:
            # of the seconds that this request took, its share: the others were answered meanwhile too
            share = (perf_counter() - start) / self._accepted
            self._pace += 0.05 * (share - self._pace)
            self._accepted -= 1

        return end

    @property
    def full(self) -> bool:
        """Whether as many requests are accepted as may be."""
        return self._accepted >= self.capacity

    def refuse_if_full(self) -> None:
        """Refuse what there is no room for, before anything of it is taken.

        Raises:
            Busy: as many as the capacity allows are accepted and not answered; says when to come back.
        """
        if self.full:
            wait = max(1, math.ceil(self._accepted * self._pace))
            raise Busy("queue", f"{self.capacity} requests at once (LOSSD_MAX_QUEUE)", wait)

    def admit(self, call: Call) -> None:
        """Let pass what may be computed here.

        Raises:
            TooLarge: its work is over the limit; states both.
        """
        if call.work > self.max_work:
            detail = (
                f"Expected at most {self.max_work} elements of work (LOSSD_MAX_WORK); "
                f"got inputs for which {call.loss.name} is estimated to take {call.work}."
            )
            raise TooLarge(detail, Fault("/inputs", "work", detail))

    def submit(self, call: Call, hold: "Entry") -> Job:
        """Queue a call; one over the limit of work has its problem as its result.

        The hold is used until nothing works on the call any more, also where its client has left before.
        """
        job = Job(call, hold)
        self._put(call, [job])
        return job

    def submit_all(self, stack: Stack, hold: "Entry") -> list[Job]:
        """Queue calls that are alike, in pieces within the budget of work."""
        most = max(1, BUDGET // max(1, stack.like.work))
        jobs = [Job(part, hold) for part in (stack.pieces(most) if self.fuse else stack)]
        self._put(stack.like, jobs)
        return jobs

    @property
    def depth(self) -> int:
        """How many calls wait for the device."""
        return sum(job.count for kind in self._waiting.values() for job in kind)

    def _put(self, like: Call, jobs: Sequence[Job]) -> None:
        """Let jobs wait among those that are like them, if they may be computed at all."""
        try:
            self.admit(like)
        except TooLarge as problem:
            for job in jobs:
                job.future.set_result([problem] * job.count)
                job.hold.leave()
            return
        self._waiting.setdefault(likeness(like), deque()).extend(jobs)
        self._wake()

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
            together = sum(job.count for job in jobs)
            for job in jobs:
                job.together, job.leads = together, job is jobs[0]
            self.on_batch(together)
            if self.device.type == "cpu" and sum(job.work for job in jobs) <= SMALL:
                self._resolve(jobs, evaluate_alike([job.part for job in jobs], self.device))
            else:
                self._start(jobs)
        self._wake()

    def _start(self, jobs: Sequence[Job]) -> None:
        """Let a thread compute."""
        self._running += 1
        parts = [job.part for job in jobs]
        running = asyncio.get_running_loop().run_in_executor(self._pool, evaluate_alike, parts, self.device)

        def finish(done: asyncio.Future[Results]) -> None:
            self._running -= 1
            error = done.exception()
            failed = [RuntimeError(repr(error))] * sum(job.count for job in jobs)
            self._resolve(jobs, done.result() if error is None else failed)
            self._wake()

        running.add_done_callback(finish)

    def _take(self) -> list[Job]:
        """Return the jobs of the first kind that fit the budget; what is left of the kind goes to the end."""
        while self._waiting:
            key = next(iter(self._waiting))
            kind = self._waiting.pop(key)
            taken: list[Job] = []
            total = 0
            while kind and (not taken or (self.fuse and total + kind[0].work <= BUDGET)):
                job = kind.popleft()
                if not job.future.done():
                    taken.append(job)
                    total += job.work
                    job.started = perf_counter()
                else:
                    job.hold.leave()
            if kind:
                self._waiting[key] = kind
            if taken:
                return taken
        return []

    def _resolve(self, jobs: Sequence[Job], results: Results) -> None:
        """Give each job its results; one whose client has left in the meantime takes none."""
        if isinstance(results, list) and any(map(_breaks_device, results)):
            self.broken = True
        start = 0
        for job in jobs:
            job.finished = perf_counter()
            if not job.future.done():
                job.future.set_result(results if len(jobs) == 1 else results[start : start + job.count])
            job.hold.leave()
            start += job.count


def _breaks_device(result: Evaluation | Exception) -> bool:
    """Tell whether a result is an error after which CUDA answers nothing but that error, as after an assertion."""
    return isinstance(result, RuntimeError) and "CUDA error" in str(result)
