"""The queue in front of the device: like calls are computed together, and no call waits for company.

Each call becomes a job with a future; the account bounds their number. On a CPU, small like jobs are computed as one on the event loop, whatever the threads do. On another
device, the oldest job is taken whenever one of its threads is free, together with all jobs like it: an idle device does
not wait for company, and a busy one finds it. Calls that a CPU computes sooner go to a queue of the CPU. Jobs whose
client has left are dropped when they are taken, and a failed call does not affect the others.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from time import perf_counter

import torch

from service.catalogue.rounds import go_on
from service.engine.call import Call, Evaluation
from service.engine.cost import BUDGET, DEVICE_BUDGET, FUSED, UNIT_BYTES
from service.engine.device import FAILED, is_alive
from service.engine.evaluate import attempt
from service.engine.fuse import Results, evaluate_alike, likeness
from service.engine.lane import Entry, Lane
from service.engine.memory import Room, is_refusal
from service.engine.memory import capacity as capacity_of
from service.engine.observer import NOBODY, Observer
from service.engine.stack import Evaluations, Part, Stack
from service.problems import Fault, Problem, TooLarge, Unavailable


class Job:
    """A waiting call; ``future`` gets its evaluation, or the exception that it raised.

    ``together`` is the number of calls computed as one with it, ``leads`` whether it was the first of them.
    """

    __slots__ = ("call", "finished", "future", "hold", "leads", "queued", "started", "together")

    def __init__(self, call: Call, hold: Entry) -> None:
        self.call = call
        self.hold = hold
        self.future: asyncio.Future[Evaluation | Exception] = asyncio.get_running_loop().create_future()
        self.queued = self.started = self.finished = perf_counter()
        self.together, self.leads = 1, True

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self.future.cancelled() or self.hold.gone


class Queue:
    """Computes calls on a device: small ones on the event loop if it is a CPU, else in ``lane``.

    Calls of at most ``near_work`` units go to ``near``, a queue of the CPU, if there is one.

    Once the device has ``failed``, it stays so for the rest of the process's life: ``on_failure`` is called with the
    reason, in any thread, and every call gets a problem as its result. Without ``fuse`` each call is computed alone, so
    that its bits do not depend on the load.
    """

    def __init__(
        self,
        device: torch.device,
        lane: Lane,
        *,
        max_work: int,
        fuse: bool = True,
        near: "Queue | None" = None,
        observer: Observer = NOBODY,
        on_failure: Callable[[str], object] = lambda reason: None,
    ) -> None:
        self.device = device
        self.on_cpu = device.type == "cpu"
        self.lane = lane
        self.max_work = max_work
        self.fuse = fuse
        self.observer = observer
        self.failed = False
        self._on_failure = on_failure
        # a GPU cannot swap: calls that do not fit together wait for each other
        self._room = None if self.on_cpu else Room(capacity_of(device))
        self.near = near
        self.near_work = 0
        self._budget = FUSED if self.on_cpu else DEVICE_BUDGET
        self._stacked = BUDGET if self.on_cpu else DEVICE_BUDGET
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._running = 0
        self._awake = False

    def of(self, part: Part) -> "Queue":
        """Return the queue that computes like calls fastest: this one, or the CPU's."""
        if self.near is None:
            return self
        # without fusing, the place of a call must not depend on its company
        work = part.work if self.fuse else part.like.work
        return self.near if part.like.loss.on_cpu or work <= self.near_work else self

    def admit(self, call: Call) -> None:
        """Check a call against the work limit.

        Raises:
            TooLarge: its work is over the limit; states both.
        """
        if (work := units(call)) > self.max_work:
            detail = (
                f"Expected at most {self.max_work} elements of work (LOSSD_MAX_WORK); "
                f"got inputs for which {call.loss.name} is estimated to take {work}."
            )
            raise TooLarge(detail, Fault("/inputs", "work", detail))

    def submit(self, call: Call, hold: Entry) -> Job:
        """Queue a call; if it is over the work limit, the problem becomes its result.

        The hold is kept until no thread works on the call any longer, even if its client has left before.
        """
        if (queue := self.of(call)) is not self:
            return queue.submit(call, hold)
        job = Job(call, hold)
        try:
            self.admit(call)
        except TooLarge as problem:
            job.future.set_result(problem)
            return job
        if not self.on_cpu:
            # a CPU takes it before anything else can end the request
            hold.use()
        key = likeness(call) if call.key is None else call.key
        self._waiting.setdefault(key, deque()).append(job)
        self._wake()
        return job

    def compute(self, parts: Sequence[Part]) -> Results:
        """Compute like calls in any thread; failures stay separate."""
        count = sum([len(part) if isinstance(part, Stack) else 1 for part in parts])
        if self.failed:
            return [Unavailable(FAILED)] * count
        self.observer.batch(count)
        with self._room.of(count * units(parts[0].like) * UNIT_BYTES) if self._room else nullcontext():
            results = self._evaluated(parts)
        if isinstance(results, Evaluations):
            return results
        return [self._noted(result) if isinstance(result, Exception) else result for result in results]

    def _evaluated(self, parts: Sequence[Part]) -> Results:
        """Evaluate like calls as one, and a call alone as it is."""
        first, *others = parts
        if others or isinstance(first, Stack):
            return evaluate_alike(parts, self.device)
        return [attempt(first, self.device)]

    def _noted(self, error: Exception) -> Exception:
        """Return an error, or a problem if it shows that the device has failed."""
        if is_refusal(error):
            self.observer.exhausted()
        if isinstance(error, Problem) or self.on_cpu:
            return error
        if not self.failed and not is_alive(self.device):
            self.failed = True
            self._on_failure(f"{self.device} has failed: {error}")
        return Unavailable(FAILED) if self.failed else error

    def compute_all(self, part: Part) -> Sequence[Results]:
        """Compute like calls without queueing, in any thread, in pieces within the work budget.

        Raises:
            Abandoned: nobody waits for them any longer.
        """
        if (queue := self.of(part)) is not self:
            return queue.compute_all(part)
        stack = isinstance(part, Stack)
        try:
            self.admit(part.like if stack else part)
        except TooLarge as problem:
            return [[problem] * (len(part) if stack else 1)]
        found: list[Results] = []
        for piece in self._pieces(part) if stack else (part,):
            if found:
                go_on()
            found.append(self.compute([piece]))
        return found

    def compute_part(self, part: Part) -> Results:
        """Compute like calls as one without queueing, in any thread; the caller bounds their work."""
        return self.of(part).compute([part])

    @property
    def depth(self) -> int:
        """The number of calls waiting for the device."""
        near = 0 if self.near is None else self.near.depth
        return near + sum(map(len, self._waiting.values()))

    def _pieces(self, stack: Stack) -> Sequence[Part]:
        """Split like calls into pieces that may be computed as one."""
        like = stack.like
        most = (self._stacked - like.overhead) // max(1, like.work - like.overhead) if self.fuse else 1
        # for single calls vmap only adds time, and its gradient cannot be interrupted
        return stack.pieces(most) if most > 1 else [*stack]

    def _wake(self) -> None:
        """Look for work after everything that is ready now has run: it may add like calls."""
        if self._waiting and not self._awake and (self.on_cpu or self._running < self.lane.threads):
            self._awake = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start the oldest jobs that are alike."""
        self._awake = False
        if jobs := self._take():
            for job in jobs:
                job.together, job.leads = len(jobs), job is jobs[0]
            calls = [job.call for job in jobs]
            if self.on_cpu and sum([call.work for call in calls]) <= FUSED:
                self._resolve(jobs, self.compute(calls))
            else:
                self._start(jobs, calls)
        self._wake()

    def _start(self, jobs: Sequence[Job], calls: Sequence[Call]) -> None:
        """Compute in a thread. The next batch waits for a free thread of a device, but not for a CPU."""
        self._running += 1

        def abandoned() -> bool:
            return all(job.abandoned for job in jobs)

        running = self.lane.run(lambda: self.compute(calls), [job.hold for job in jobs], abandoned)

        def finish(done: asyncio.Future[Results]) -> None:
            self._running -= 1
            error = done.exception()
            failed = RuntimeError(repr(error))
            self._resolve(jobs, done.result() if error is None else [failed] * len(jobs))
            self._wake()

        running.add_done_callback(finish)

    def _take(self) -> list[Job]:
        """Take jobs of the oldest kind within the budget; the rest of that kind moves to the end."""
        while self._waiting:
            key = next(iter(self._waiting))
            kind = self._waiting.pop(key)
            taken: list[Job] = []
            total = 0
            while kind and (not taken or (self.fuse and total + kind[0].call.work <= self._budget)):
                job = kind.popleft()
                if job.abandoned:
                    self._leave(job)
                else:
                    taken.append(job)
                    total += job.call.work
                    job.started = perf_counter()
            if kind:
                self._waiting[key] = kind
            if taken:
                return taken
        return []

    def _resolve(self, jobs: Sequence[Job], results: Results) -> None:
        """Give each job its result, unless its client has left."""
        for job, result in zip(jobs, results, strict=True):
            job.finished = perf_counter()
            if not job.future.done():
                job.future.set_result(result)
            self._leave(job)

    def _leave(self, job: Job) -> None:
        """Stop keeping the hold of a job."""
        if not self.on_cpu:
            job.hold.leave()


def units(call: Call) -> int:
    """Return how much of the work limit a call uses: float64 counts twice, having twice the bytes.

    This also applies to losses that always compute in float64.
    """
    return 2 * call.work if call.dtype is torch.float64 else call.work
