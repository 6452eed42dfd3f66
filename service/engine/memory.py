"""Refuse a call that needs more memory than its device has, or numbers than there are, instead of breaking."""

import ctypes
import os
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from service.problems import Fault, Invalid, TooLarge

EXHAUSTED = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "size calculation overflowed",
    "ALLOC_FAILED",
)
"""What the allocators of torch and of CUDA's libraries say. They have no common exception."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3)."""
LARGEST_KEPT = 32 << 20
"""Bytes of a block from which on it goes back to the system when it is freed: glibc takes no more."""
MOST_KEPT = 128 << 20
"""Bytes of free memory at the end of the heap that are kept."""
MOST_PINNED = 1 << 30
"""Bytes of pinned memory that are kept: to pin 64 MB anew takes as long as to compute with them."""
UNITS = {"bytes": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50}
_SIZE = re.compile(rf"tried to allocate ([\d.]+) ({'|'.join(UNITS)})", re.IGNORECASE)
T = TypeVar("T")
REFUSED = "device_memory"
"""The code of the fault of a call that does not fit."""


def within_memory(compute: Callable[[], T], device: torch.device) -> T:
    """Compute something on a device; where it does not fit, once more after what is kept free was given back.

    Raises:
        TooLarge: it asks for more than there is, even so; states what it asks for, and what is free.
        Invalid: a param is so great, or so small, that what Python makes of it alone is no float64.
    """
    try:
        return _computed(compute)
    except Exhausted:
        pass
    # past the handler nothing holds the tensors of the first attempt any more
    give_back_memory()
    try:
        return _computed(compute)
    except Exhausted as exhausted:
        raise _too_large(str(exhausted), device) from None


class Room:
    """The memory of a device, as far as what is computed there at once may take it."""

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._changed = threading.Condition()

    @contextmanager
    def of(self, size: int) -> Generator[None]:
        """Take some of it while something is computed, after others are done if it must be; all, if it is more."""
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


class Exhausted(Exception):
    """An allocator refused; holds what it said, and nothing that was computed."""


def _computed(compute: Callable[[], T]) -> T:
    """Compute something.

    Raises:
        Exhausted: memory did not suffice.
        Invalid: as `within_memory`.
    """
    try:
        return compute()
    except ArithmeticError:
        detail = "Expected params whose powers and quotients float64 has; got one beyond."
        raise Invalid(Fault("", "range", detail)) from None
    except (MemoryError, RuntimeError) as error:
        if not is_exhausted(error):
            raise
        raise Exhausted(str(error)) from None


def is_exhausted(error: Exception) -> bool:
    """Tell whether an error says that memory does not suffice."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in EXHAUSTED)


def is_refusal(result: object) -> bool:
    """Tell whether a result is the problem of a call that did not fit, however it was tried."""
    return isinstance(result, TooLarge) and any(fault.code == REFUSED for fault in result.faults)


def _too_large(told: str, device: torch.device) -> TooLarge:
    """Return the problem of a call whose allocator told of its size, as a rule."""
    asked = _SIZE.search(told)
    size = f"{_bytes(asked)} bytes more" if asked else "more than can be counted"
    room = f"the {free(device)} bytes that are free of {device} (LOSSD_DEVICE)"
    detail = f"Expected a call that fits {room}; got one that takes {size}."
    return TooLarge(detail, Fault("", REFUSED, detail))


def _bytes(size: re.Match[str]) -> int:
    """Return a size in bytes, whatever unit it is told in."""
    number, unit = size.groups()
    return round(float(number) * UNITS[unit.lower()])


def free(device: torch.device) -> int:
    """Return the bytes of a device's memory that can be had."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return capacity(device)


def capacity(device: torch.device) -> int:
    """Return the bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def used(device: torch.device) -> dict[str, int]:
    """Return the bytes in use of a device's memory, by kind, as far as this system tells."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "pinned": _pinned(),
        }
    try:
        with open("/proc/self/statm", "rb") as told:
            return {"resident": int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")}
    except OSError:
        return {}


def keep_freed_memory() -> None:
    """Let the C library keep what large bodies are freed from for the next ones, where it can (glibc).

    By default it gives blocks back to the system as soon as they are freed, and the next body pays for a page
    fault every 4 KB: to receive 11 MB took three times as long.
    """
    for option, size in ((M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, MOST_KEPT)):
        _call_allocator("mallopt", option, size)


def give_back_memory() -> None:
    """Give the host's memory that is free and kept back to the system, after what is much larger than most.

    CUDA's allocator gives back what it keeps before it refuses anything; to empty it more often slows all other calls.
    """
    _call_allocator("malloc_trim", 0)
    # torch has it since 2.12
    empty: Callable[[], None] | None = getattr(torch.accelerator, "empty_host_cache", None)
    if empty is not None and _pinned() > MOST_PINNED:
        empty()


def _pinned() -> int:
    """Return the bytes of pinned memory that are in use or kept."""
    # torch has it since 2.10
    read: Callable[[], dict[str, int]] | None = getattr(torch.cuda, "host_memory_stats", None)
    return read().get("allocated_bytes.current", 0) if read and torch.cuda.is_initialized() else 0


def _call_allocator(name: str, *arguments: int) -> None:
    """Call a function of glibc's allocator; other C libraries do without."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return
    function(*arguments)
