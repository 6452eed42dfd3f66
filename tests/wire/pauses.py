"""How long one thread keeps the interpreter to itself while it works."""

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

TURN_S = 0.0005


@dataclass(frozen=True)
class Pause:
    """The longest time that a thread worked, by its own clock, while another waited for its turn."""

    seconds: float
    answer: object


def longest_pause(work: Callable[[], object]) -> Pause:
    """Do some work in a thread and measure its longest pause for others.

    What is measured is the processor's time of the thread between two turns of this one: a busy machine takes the
    processor from both, and makes no pause longer.
    """
    answers: list[object] = []
    started, measured = threading.Event(), threading.Event()

    def run() -> None:
        started.set()
        try:
            answers.append(work())
        except Exception as error:
            answers.append(error)
        measured.wait()

    gc.collect()
    gc.freeze()
    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    longest, last = 0.0, time.clock_gettime(clock)
    while not answers:
        time.sleep(TURN_S)
        now = time.clock_gettime(clock)
        longest, last = max(longest, now - last), now
    measured.set()
    thread.join()
    gc.unfreeze()
    return Pause(longest, answers[0])
