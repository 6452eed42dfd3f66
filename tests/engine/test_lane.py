"""Lanes: what a thread has done is let go of once nobody waits for it any more."""

import asyncio
import gc
import weakref

from service.engine.lane import Lane


class Result:
    """Something that can be referred to weakly."""


class Hold:
    """A request whose client is there."""

    gone = False

    def use(self) -> None: ...

    def leave(self) -> None: ...


def test_a_result_is_freed_with_the_future_that_gave_it_without_the_collector() -> None:
    async def work() -> weakref.ref[Result]:
        lane = Lane("test", 1)
        result = await lane.run(Result, [Hold()])
        # the thread lets go of what it did last when it does something else
        await lane.run(int, [Hold()])
        lane.close()
        return weakref.ref(result)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(work())() is None
    finally:
        gc.enable()
