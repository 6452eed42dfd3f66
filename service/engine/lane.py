"""Threads for work that would block the event loop: one pool for each kind of work, so that none fills another's."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from service.catalogue.rounds import ended_by

T = TypeVar("T")


class Entry(Protocol):
    """An entry kept open while work is done for a request: its `Hold` on the account."""

    gone: bool

    def use(self) -> None: ...
    def leave(self) -> None: ...


class Lane:
    """A few threads and their queue of work. Use it from the event loop."""

    def __init__(self, name: str, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def run(
        self, work: Callable[[], T], holds: Sequence[Entry], abandoned: Callable[[], bool] | None = None
    ) -> asyncio.Future[T]:
        """Run a function in a thread, keeping some holds open until it has ended.

        Cancelling the future drops work that no thread has begun, and stops running work at the next check in `rounds`.
        Running work also stops if ``abandoned`` says so; by default, if the client of a hold is gone.
        """
        task = _Task(work, holds, abandoned)
        task.future.add_done_callback(task.drop)
        self._pool.submit(task.run)
        return task.future

    def close(self) -> None:
        """Start nothing more. Running work is not waited for, because it may take any time."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Task:
    """A function for a thread to run, unless it is dropped before."""

    def __init__(
        self, work: Callable[[], Any], holds: Sequence[Entry], abandoned: Callable[[], bool] | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()
        # whichever thread pops it runs it
        self._work = [work]
        self._holds = holds
        # storing a bound method here would make a cycle, which keeps the result until the garbage collector runs
        self._abandoned = abandoned
        for hold in holds:
            hold.use()

    def run(self) -> None:
        """Run the function; called in a thread."""
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
        # if the loop is closed, nobody is waiting
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, result, error)
        # the traceback has this frame: in a cycle, it would keep a whole body until the collector runs
        del error

    def drop(self, future: asyncio.Future[Any]) -> None:
        """Drop work that no thread has begun, once its future is cancelled."""
        if self._work:
            with suppress(IndexError):
                self._work.pop()
                self._leave()

    def _end(self, result: Any, error: BaseException | None) -> None:
        """Pass the result on to whoever waits."""
        self._leave()
        future = self.future
        # the traceback of the error leads to this task
        del self.future
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def _leave(self) -> None:
        for hold in self._holds:
            hold.leave()

    def _is_left(self) -> bool:
        """Whether nobody waits any longer."""
        return self.future.cancelled() or any(hold.gone for hold in self._holds)
