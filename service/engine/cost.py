"""Estimates of time and memory for each step, and the thresholds that decide where it runs.

Measured on a core at 2.5 GHz: reading JSON takes 2 to 10 ns a byte, and 50 ns for mixed kinds of numbers, nulls and
names; writing an answer takes 2 to 10 ns a byte. A unit of `Call.work` takes 1 to 50 ns in most losses, at most
110 ns in any, and up to 22 bytes, with all gradients in float32. At most, a call at the default limit of 2^27 units
takes 15 s of a core and 3 GB.
"""

BYTE_S = 5e-8
"""Most seconds to read a byte of JSON."""
COPY_S = 2e-9
"""Seconds for a byte of a binary tensor, in and out, including checks of its values."""
UNIT_S = 1.1e-7
"""Most seconds for a unit of work."""
UNIT_BYTES = 22
"""Most bytes for a unit of work, at the peak and in float32: 3 GB at the default limit."""
CALL_S = 1e-4
"""Seconds that a call takes besides its work: calling torch functions, writing its answer."""
INLINE_S = 2e-3
"""Longest time of a request on the event loop, in seconds; all others wait that long. A hand-over to a thread and back
takes 0.1 ms on an idle machine, and some ms when its cores are busy."""
QUICK_S = 0.12
"""Longest time of a request in the quick lane, in seconds: 1 million units of work, or 2 MB of JSON."""
FUSED = 1 << 13
"""Most units of work of calls computed as one on the event loop: 0.9 ms."""
BUDGET = 1 << 20
"""Most units of work stacked at once elsewhere: beyond, fusing saves nothing, and memory stays bounded."""

DEVICE_BUDGET = 1 << 22
"""Units of work to stack at once on a GPU: an H100 takes 1.2 ms for any small call, and 3.6 ms for half of these."""
TYPICAL_UNIT_S = 2.5e-8
"""Seconds for a unit of work on a core, in most losses."""

SECOND = 12
"""Work of second derivatives along one direction, as a multiple of that of a value with its gradients."""


def reading(size: int) -> float:
    """Estimate the seconds to read this many bytes of JSON and write as many."""
    return size * BYTE_S


def copying(size: int) -> float:
    """Estimate the seconds to copy and check this many bytes."""
    return size * COPY_S


def computing(work: int) -> float:
    """Estimate the seconds to compute calls."""
    return work * UNIT_S + CALL_S
