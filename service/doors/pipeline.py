"""The pipeline: decode, compute and encode each request where that blocks nobody else.

Requests cheaper than a hand-over to a thread run on the event loop and are computed together with others like them.
Longer ones use the quick lane, long ones the slow lane, so that they cannot fill the quick one; `service.engine.cost`
has the thresholds. On a CPU, one thread takes a request from its bytes to its answer: this saves hand-overs and keeps
only one intermediate result a thread in memory. Other devices have threads that only compute; the thread that decodes
copies large inputs into pinned memory for them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter
from typing import Any, Generic, Protocol, TypeVar

from starlette.types import Receive, Scope

from service.admission.account import Hold
from service.admission.body import ClientGone
from service.catalogue.rounds import Abandoned, go_on
from service.doors.waiting import Due, wait
from service.engine import cost
from service.engine.call import Call, Evaluation
from service.engine.fuse import Results
from service.engine.lane import Lane
from service.engine.memory import give_back_memory, is_exhausted
from service.engine.queue import Queue
from service.engine.stack import Part
from service.engine.transfer import pinned
from service.problems import TooLarge
from service.telemetry.stages import Stages
from service.wire.text import Body

LARGE = 1 << 24
"""Size of a body in bytes from which on freed memory is returned to the system: glibc would keep it."""
LOOK_S = 0.001
"""Seconds between two looks whether the client of a batch is still there."""
T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E")
A = TypeVar("A")


@dataclass(slots=True)
class Work:
    """A request in progress, with the size of its body, which is ``held`` until it is decoded.

    ``seconds`` is its estimated time, as far as it is known.
    """

    size: int
    hold: Hold
    receive: Receive
    due: Due
    stages: Stages
    held: list[Body] = field(default_factory=list[Body])
    seconds: float = 0.0
    together: int = 1
    leads: bool = True

    def timed(self, stage: str, step: Callable[..., T], *arguments: Any) -> T:
        """Run a step, and add its duration to a stage.

        Raises:
            TooLarge: memory ran out, in whichever library.
        """
        start = self.stages.began[stage] = perf_counter()
        try:
            return step(*arguments)
        except (MemoryError, RuntimeError) as error:
            if not is_exhausted(error):
                raise
        finally:
            self.stages.seconds[stage] += perf_counter() - start
        # past the handler, nothing references the partial result
        raise TooLarge("Expected a request that fits into free memory; got one that needs more.")


class HasCall(Protocol):
    """A decoded request for one call."""

    @property
    def call(self) -> Call: ...


C = TypeVar("C", bound=HasCall)


@dataclass(frozen=True, slots=True)
class Steps(Generic[D, E, A]):
    """The steps of a request. ``seconds`` estimates the computation, which ``compute`` does in any thread."""

    decode: Callable[[], D]
    seconds: Callable[[D], float]
    compute: Callable[[D], E]
    send: Callable[[D], Callable[[], Awaitable[E]] | None]
    """Prepares inputs for a device other than the CPU, in any thread; returns a function that computes, None for the CPU."""
    encode: Callable[[D, E], A]


class Pipeline:
    """Takes requests through their steps."""

    def __init__(self, queue: Queue, quick: Lane, slow: Lane) -> None:
        self.queue = queue
        self.quick = quick
        self.slow = slow

    def begin(self, scope: Scope, receive: Receive, size: int, seconds: float) -> Work:
        """Return the work for a request whose body has arrived, with its deadline in seconds."""
        state = scope["state"]
        work = Work(size, state["hold"], receive, Due(seconds, monotonic()), state["stages"])
        if size > LARGE:
            self.forget(work)
        return work

    def forget(self, work: Work) -> None:
        """Return the memory of a large request to the system at its end: a refused request is as large."""
        work.hold.at_end(self._give_back_memory)

    async def run(self, work: Work, step: Callable[[], T], seconds: float) -> T:
        """Run a step that is estimated to take this many seconds."""
        lane = self._lane(work, seconds)
        return step() if lane is None else await self._in_lane(work, lane, step)

    async def call(
        self, work: Work, decode: Callable[[], C], encode: Callable[[C, Evaluation], A], seconds: float
    ) -> A:
        """Answer a request for one call; ``seconds`` estimates reading it and writing the answer."""
        if lane := self._lane(work, seconds):
            return await self._in_threads(work, lane, self._call_steps(work, decode, encode))
        decoded = work.timed("decode", decode)
        if lane := self._lane(work, decoded.call.work * cost.UNIT_S + cost.CALL_S):
            steps = self._call_steps(work, decode, encode)
            return await self._finish(work, lane, steps, decoded, steps.send(decoded))
        evaluation = await self._compute_together(work, decoded.call)
        return work.timed("encode", encode, decoded, evaluation)

    def _call_steps(
        self, work: Work, decode: Callable[[], C], encode: Callable[[C, Evaluation], A]
    ) -> "Steps[C, Evaluation, A]":
        """Return the steps of a request for one call."""
        return Steps(
            decode,
            lambda decoded: cost.computing(decoded.call.work),
            lambda decoded: self._compute(decoded.call),
            lambda decoded: self._send(work, decoded.call),
            encode,
        )

    async def batch(
        self,
        work: Work,
        decode: Callable[[], D],
        parts: Callable[[D], Sequence[Part]],
        encode: Callable[[D, Sequence[Sequence[Results]]], A],
        seconds: Callable[[D], float] = lambda decoded: 0.0,
    ) -> A:
        """Answer a request for several calls, grouped into parts of like calls; never on the event loop.

        ``seconds`` estimates what ``encode`` computes besides.
        """

        def compute(found: Sequence[Part]) -> Sequence[Sequence[Results]]:
            results: list[Sequence[Results]] = []
            looked = perf_counter()
            for part in found:
                if perf_counter() > looked + LOOK_S:
                    go_on()
                    looked = perf_counter()
                results.append(self.queue.compute_all(part))
            return results

        def send(decoded: D) -> Callable[[], Awaitable[Sequence[Sequence[Results]]]] | None:
            if self.queue.on_cpu or all(self._is_near(part) for part in parts(decoded)):
                return None
            found = [pinned(part, self.queue.device, work.hold.add) for part in parts(decoded)]
            return lambda: self._in_lane(work, self.queue.lane, partial(compute, found))

        steps = Steps(
            decode,
            lambda decoded: (
                sum([part.work * cost.UNIT_S + cost.CALL_S for part in parts(decoded)]) + seconds(decoded)
            ),
            lambda decoded: compute(parts(decoded)),
            send,
            encode,
        )
        return await self.apart(work, steps)

    async def apart(self, work: Work, steps: Steps[D, E, A]) -> A:
        """Answer a request whose steps never run on the event loop."""
        lane = self._lane(work, cost.reading(work.size)) or self.quick
        return await self._in_threads(work, lane, steps)

    def close(self) -> None:
        """Start nothing more, without waiting for running work."""
        for lane in {self.quick, self.slow, self.queue.lane}:
            lane.close()

    def _lane(self, work: Work, seconds: float) -> Lane | None:
        """Return the lane for a request that takes this many more seconds; None for the event loop."""
        work.seconds += seconds
        if work.seconds <= cost.INLINE_S:
            return None
        return self.quick if work.seconds <= cost.QUICK_S else self.slow

    async def _in_lane(self, work: Work, lane: Lane, step: Callable[[], T]) -> T:
        """Run a step in a lane's thread and wait for it.

        Raises:
            Late: the deadline has passed.
            ClientGone: the client has left.
        """
        queued = perf_counter()

        def begin() -> T:
            work.stages.seconds["queue"] += perf_counter() - queued
            return step()

        try:
            return await wait(lane.run(begin, [work.hold]), work.receive, work.due)
        except Abandoned:
            raise ClientGone from None

    async def _in_threads(self, work: Work, lane: Lane, steps: Steps[D, E, A]) -> A:
        """Do all steps in threads."""

        def decode() -> D:
            return work.timed("decode", steps.decode)

        def begin() -> tuple[D, A | None, Callable[[], Awaitable[E]] | None]:
            decoded = decode()
            if sent := steps.send(decoded):
                return decoded, None, sent
            # more work than the size of the body suggested: it must not fill the quick lane
            if self._lane(work, steps.seconds(decoded)) is self.slow is not lane:
                return decoded, None, None
            return decoded, self._compute_and_encode(work, steps, decoded), None

        decoded, answer, sent = await self._in_lane(work, lane, begin)
        if answer is None:
            return await self._finish(work, lane if sent else self.slow, steps, decoded, sent)
        return answer

    async def _finish(
        self,
        work: Work,
        lane: Lane,
        steps: Steps[D, E, A],
        decoded: D,
        sent: Callable[[], Awaitable[E]] | None,
    ) -> A:
        """Run the steps after decoding in threads; ``sent`` computes on a device other than the CPU."""
        if sent is None:
            finish = partial(self._compute_and_encode, work, steps, decoded)
        else:
            finish = partial(self._encode, work, steps, decoded, await sent())
        return await self._in_lane(work, lane, finish)

    def _send(self, work: Work, call: Call) -> Callable[[], Awaitable[Evaluation]] | None:
        """Prepare a call for a device other than the CPU, and return a function that computes it; None for the CPU."""
        if self.queue.on_cpu or self._is_near(call):
            return None
        return partial(self._compute_together, work, pinned(call, self.queue.device, work.hold.add))

    def _is_near(self, part: Part) -> bool:
        """Return whether the CPU computes these calls."""
        return self.queue.of(part).on_cpu

    def _compute_and_encode(self, work: Work, steps: Steps[D, E, A], decoded: D) -> A:
        """Run the steps after decoding here."""
        computed = work.timed("compute", steps.compute, decoded)
        return self._encode(work, steps, decoded, computed)

    def _encode(self, work: Work, steps: Steps[D, E, A], decoded: D, computed: E) -> A:
        """Run the last step here."""
        return work.timed("encode", steps.encode, decoded, computed)

    def _give_back_memory(self) -> None:
        # the lane is closed when the server ends
        with suppress(RuntimeError):
            self.slow.run(give_back_memory, [])

    def _compute(self, call: Call) -> Evaluation:
        """Compute one call here.

        Raises:
            TooLarge: its work is over the limit, or it does not fit into the device's memory.
        """
        queue = self.queue.of(call)
        queue.admit(call)
        [result] = queue.compute([call])
        if isinstance(result, Evaluation):
            return result
        raise result

    async def _compute_together(self, work: Work, call: Call) -> Evaluation:
        """Let the queue compute a call together with others like it."""
        job = self.queue.submit(call, work.hold)
        # the loop computes small jobs after everything that was ready has run
        await asyncio.sleep(0)
        done = job.future.done()
        result = job.future.result() if done else await wait(job.future, work.receive, work.due)
        seconds = work.stages.seconds
        seconds["queue"] += job.started - job.queued
        seconds["compute"] += job.finished - job.started
        work.together, work.leads = job.together, job.leads
        if isinstance(result, Evaluation):
            return result
        raise ClientGone if isinstance(result, Abandoned) else result
