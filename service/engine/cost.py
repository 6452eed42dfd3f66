"""What a step is estimated to take, and up to what it may be done where: the only place that decides.

Measured on a core of 2.5 GHz: to read JSON takes 2 to 10 ns a byte, of mixed kinds of numbers, of nulls and of names
50 ns; to write an answer takes 2 to 10 ns a byte. A unit of `Call.work` takes 1 to 50 ns in most losses, at most
110 ns in any, and up to 22 bytes, with all gradients in float32. A call at the default limit of 2^27 units takes 15 s
of a core and 3 GB at most.
"""

import torch

from service.engine.call import Call

BYTE_S = 5e-8
"""Seconds that a byte of JSON takes at most to read."""
COPY_S = 2e-9
"""Seconds that a byte of a binary tensor takes, on its way in and out: checks of its values among them."""
UNIT_S = 1.1e-7
"""Seconds that a unit of work takes at most."""
UNIT_BYTES = 22
"""Bytes that a unit of work takes at most, at the peak and in float32: 3 GB at the default limit."""
CALL_S = 1e-4
"""Seconds that a call takes beside its work: of the torch functions that it calls, and of its answer."""
INLINE_S = 2e-3
"""Seconds that a request may take on the event loop: a hand-over to a thread and back takes 0.1 ms when the machine
is idle, and some ms when its cores are busy. Others wait as long."""
QUICK_S = 0.12
"""Seconds that a request may take in the quick lane: 1 million units of work, or 2 MB of JSON."""
FUSED = 1 << 13
"""Units of work of calls that are computed as one on the event loop: 0.9 ms."""
BUDGET = 1 << 20
"""Units of work that are stacked at once elsewhere: what fusing saves is gone long before, and it bounds memory."""

DEVICE_BUDGET = 1 << 22
"""Units of work that are stacked at once on another device: an H100 takes 1.7 ms for 1, and 3.6 ms for half of these."""
TYPICAL_UNIT_S = 2.5e-8
"""Seconds of a core that a unit of work takes in most losses."""


def reading(size: int) -> float:
    """Return the seconds that reading so many bytes takes, and writing as many."""
    return size * BYTE_S


def copying(size: int) -> float:
    """Return the seconds that copying so many bytes takes, and looking through them."""
    return size * COPY_S


def computing(work: int, calls: int = 1) -> float:
    """Return the seconds that computing takes."""
    return work * UNIT_S + calls * CALL_S


def units(call: Call) -> int:
    """Return what of the limit of work a call takes: float64 has twice the bytes.

    It counts twice also where a loss computes in float64 whatever it is sent.
    """
    return 2 * call.work if call.dtype is torch.float64 else call.work
