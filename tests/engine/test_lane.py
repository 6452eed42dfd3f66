"""Lanes: a thread does not keep its result after the caller has released it."""

import asyncio
import gc
import weakref

from service.engine.lane import Lane


class Result:
    """A result that supports weak references."""


class Hold:
    """A request whose client is still connected."""

    gone = False

    def use(self) -> None: ...

    def leave(self) -> None: ...


def test_a_result_is_freed_with_the_future_that_gave_it_without_the_collector() -> None:
    async def work() -> weakref.ref[Result]:
        lane = Lane("test", 1)
        result = await lane.run(Result, [Hold()])
        # the thread releases its last result when it takes the next task
        await lane.run(int, [Hold()])
        lane.close()
        return weakref.ref(result)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(work())() is None
    finally:
        gc.enable()
