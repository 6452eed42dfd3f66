"""Common parts of the probes: the report, the device from the command line, a clock and a call."""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from service.losses import CATALOGUE

DEVICE = torch.device("cuda:0" if sys.argv[1] == "cuda" else sys.argv[1])
CUDA = DEVICE.type == "cuda"
LOSSES = [*CATALOGUE.values()]
OUT: list[str] = []
START = time.perf_counter()


def say(text: str) -> None:
    """Print a line, and write all lines so far, so that an interrupted run keeps its results."""
    OUT.append(text)
    print(f"{time.perf_counter() - START:6.1f}s {text}", flush=True)
    with open(sys.argv[2], "w") as file:
        file.write("\n".join(OUT) + "\n")


def wait() -> None:
    """Wait for the device."""
    if CUDA:
        torch.cuda.synchronize()


def median_us(what: Callable[[], object], count: int = 50) -> float:
    """Return the median time of a function in microseconds, including the wait for the device."""
    for _ in range(min(5, count)):
        what()
    seconds: list[float] = []
    for _ in range(count):
        wait()
        start = time.perf_counter()
        what()
        wait()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds)
