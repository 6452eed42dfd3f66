"""Refuse calls that need more memory than the device has, instead of crashing; tune glibc's allocator."""

import ctypes
import os
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from service.problems import Fault, Invalid, TooLarge

EXHAUSTED = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "size calculation overflowed",
    "ALLOC_FAILED",
)
"""Messages of the allocators of torch and of CUDA's libraries, which share no exception type."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3)."""
LARGEST_KEPT = 32 << 20
"""Blocks of at least this many bytes go back to the system when freed: glibc accepts no larger value."""
MOST_KEPT = 128 << 20
"""Bytes of free memory to keep at the end of the heap."""
MOST_PINNED = 1 << 30
"""Bytes of pinned memory to keep: pinning 64 MB anew takes longer than computing with it."""
UNITS = {"bytes": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50}
_SIZE = re.compile(rf"tried to allocate ([\d.]+) ({'|'.join(UNITS)})", re.IGNORECASE)
REFUSED = "device_memory"
"""Fault code of a call that does not fit."""
FAILURES = (ArithmeticError, MemoryError, RuntimeError)
"""Errors of Python and torch if numbers or tensors are too large, among others."""


class Room:
    """The memory of a device, shared by the calls that are computed there at once."""

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._changed = threading.Condition()

    @contextmanager
    def of(self, size: int) -> Generator[None]:
        """Reserve part of it during a computation, waiting for others if necessary; at most all of it."""
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: size <= self._free)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


def raise_unless_exhausted(error: Exception) -> None:
    """Return if an error of a computation, one of `FAILURES`, says that memory ran out.

    Raises:
        Invalid: a param is so large or small that arithmetic on it in Python overflows float64.
        RuntimeError: the error itself, if it is another one.
    """
    if isinstance(error, ArithmeticError):
        detail = "Expected params whose powers and quotients fit into float64; got larger ones."
        raise Invalid(Fault("", "range", detail)) from None
    if not is_exhausted(error):
        raise error


def is_exhausted(error: Exception) -> bool:
    """Return whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in EXHAUSTED)


def is_refusal(result: object) -> bool:
    """Return whether a result is the problem of a call that did not fit."""
    return isinstance(result, TooLarge) and any(fault.code == REFUSED for fault in result.faults)


def does_not_fit(message: str, device: torch.device) -> TooLarge:
    """Return the problem of a failed allocation, whose message usually gives a size."""
    asked = _SIZE.search(message)
    size = f"{_bytes(asked)} bytes more" if asked else "more than can be counted"
    room = f"the {free(device)} bytes that are free of {device} (LOSSD_DEVICE)"
    detail = f"Expected a call that fits {room}; got one that takes {size}."
    return TooLarge(detail, Fault("", REFUSED, detail))


def _bytes(size: re.Match[str]) -> int:
    """Parse a size in bytes with its unit."""
    number, unit = size.groups()
    return round(float(number) * UNITS[unit.lower()])


def free(device: torch.device) -> int:
    """Return the bytes of a device's memory that are available."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return capacity(device)


def capacity(device: torch.device) -> int:
    """Return the total bytes of a device's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def used(device: torch.device) -> dict[str, int]:
    """Return the bytes in use of a device's memory by kind, as far as the system reports them."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "pinned": _pinned(),
        }
    try:
        with open("/proc/self/statm", "rb") as file:
            return {"resident": int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")}
    except OSError:
        return {}


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed bodies for the next ones; no effect with other C libraries.

    By default it returns large blocks to the system as soon as they are freed, and the next body pays for a page
    fault every 4 KB: receiving 11 MB took three times as long.
    """
    for option, size in ((M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, MOST_KEPT)):
        _call_allocator("mallopt", option, size)


def give_back_memory() -> None:
    """Return cached free memory of the host to the system, after an unusually large request or before a retry.

    CUDA's allocator frees its cache itself before an allocation fails; emptying it more often slows all other calls.
    """
    _call_allocator("malloc_trim", 0)
    # older versions of torch lack both
    empty: Callable[[], None] | None = getattr(torch.accelerator, "empty_host_cache", None)
    if empty is not None and _pinned() > MOST_PINNED:
        empty()


def _pinned() -> int:
    """Return the bytes of pinned memory, in use or cached."""
    read: Callable[[], dict[str, int]] | None = getattr(torch.cuda, "host_memory_stats", None)
    return read().get("allocated_bytes.current", 0) if read and torch.cuda.is_initialized() else 0


def _call_allocator(name: str, *arguments: int) -> None:
    """Call a function of glibc's allocator; does nothing with other C libraries."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return
    function(*arguments)
