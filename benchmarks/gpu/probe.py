"""Probe the engine on a GPU: numbers, waits, bits, where time goes, memory, faults; ``python -m benchmarks.gpu.probe cuda OUT.md``.

With ``cpu`` for the device it is a rehearsal.
"""

import traceback

import torch

from benchmarks.gpu.faults import faults
from benchmarks.gpu.numbers import numbers
from benchmarks.gpu.report import CUDA, say
from benchmarks.gpu.timings import copies, crossover, graphs, small_copies, steps, threads, together


def memory() -> None:
    """Write the memory held at the end."""
    if CUDA:
        stats = torch.cuda.memory.host_memory_stats()
        pinned = {name: size for name, size in stats.items() if name.endswith((".current", ".peak"))}
        say(f"## Memory\nreserved {torch.cuda.memory_reserved() >> 20} MiB, pinned {pinned}")


def main() -> None:
    """Run all probes, even if some fail."""
    torch.set_num_threads(1)
    for part in (numbers, steps, copies, small_copies, threads, together, crossover, graphs, memory, faults):
        try:
            part()
        except Exception:
            say(f"**{part.__name__} broke**\n```\n{traceback.format_exc()[-1500:]}\n```")
    say("done")


if __name__ == "__main__":
    main()
