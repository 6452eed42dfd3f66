"""Wait for conditions, on a machine of any load."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

WAIT_S = 300.0
"""Longer than anything takes on a machine that is busy with other things."""
LOOK_S = 0.05


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it has not come to hold"
        time.sleep(LOOK_S)


@contextmanager
def within_cpu_s(seconds: float) -> Generator[None]:
    """Let the body of a ``with`` take so many seconds of this process's time, however long others keep it waiting."""
    start = time.process_time()
    yield
    taken = time.process_time() - start
    assert taken < seconds, f"{taken:.2f} s"
