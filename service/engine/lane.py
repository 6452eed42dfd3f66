"""Threads for what would hold up the event loop: each kind of work has its own, which no other kind can fill."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from service.catalogue.rounds import ended_by

T = TypeVar("T")


class Entry(Protocol):
    """What is kept open while somebody works for a request: the account's `Hold` of it."""

    gone: bool

    def use(self) -> None: ...
    def leave(self) -> None: ...


class Lane:
    """A few threads and what waits for them. It is used from the event loop."""

    def __init__(self, name: str, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def run(
        self, work: Callable[[], T], holds: Sequence[Entry], abandoned: Callable[[], bool] | None = None
    ) -> asyncio.Future[T]:
        """Let a thread work, and keep some holds open until it has ended.

        A future that is cancelled takes with it what no thread has begun; what has begun ends at the next look of
        `rounds`. So it does where ``abandoned`` says so, or by default where the client of a hold is gone.
        """
        task = _Task(work, holds, abandoned)
        task.future.add_done_callback(task.drop)
        self._pool.submit(task.run)
        return task.future

    def close(self) -> None:
        """Begin no more; what runs is not waited for, as nobody can say how long it takes."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Task:
    """What a thread is to do, as long as it is to be done."""

    def __init__(
        self, work: Callable[[], Any], holds: Sequence[Entry], abandoned: Callable[[], bool] | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()
        # to pop it is to take charge of it, in whatever thread
        self._work = [work]
        self._holds = holds
        # not its own method, which would keep it, and so its result, until the collector comes
        self._abandoned = abandoned
        for hold in holds:
            hold.use()

    def run(self) -> None:
        """Work, in a thread."""
        try:
            work = self._work.pop()
        except IndexError:
            return
        result, error = None, None
        try:
            with ended_by(self._abandoned or self._is_left):
                result = work()
        except BaseException as raised:
            error = raised
        del work
        # a loop that is closed has nobody who waits
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, result, error)

    def drop(self, future: asyncio.Future[Any]) -> None:
        """Let go of what no thread has begun, where nobody waits for it any more."""
        if self._work:
            with suppress(IndexError):
                self._work.pop()
                self._leave()

    def _end(self, result: Any, error: BaseException | None) -> None:
        """Give what came of it to whoever waits."""
        self._leave()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)

    def _leave(self) -> None:
        for hold in self._holds:
            hold.leave()

    def _is_left(self) -> bool:
        """Whether nobody waits any more."""
        return self.future.cancelled() or any(hold.gone for hold in self._holds)
