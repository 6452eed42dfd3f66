"""Refuse a call that needs more memory than its device has, or numbers than there are, instead of breaking."""

import ctypes
import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

from service.problems import Fault, Invalid, TooLarge

EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
"""What torch's allocators say. They have no common exception."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3)."""
LARGEST_KEPT = 32 << 20
"""Bytes of a block from which on it goes back to the system when it is freed: glibc takes no more."""
MOST_KEPT = 128 << 20
"""Bytes of free memory at the end of the heap that are kept."""
_SIZE = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)

on_exhausted: Callable[[], None] | None = None
"""Told of every call that did not fit."""


@contextmanager
def within_memory(device: torch.device) -> Generator[None]:
    """Let the body of a ``with`` allocate on a device.

    Raises:
        TooLarge: it asked for more than there is; states the limit and the size.
        Invalid: a param is so great, or so small, that what Python makes of it alone is no float64.
    """
    try:
        yield
    except ArithmeticError:
        detail = "Expected params whose powers and quotients float64 has; got one beyond."
        raise Invalid(Fault("", "range", detail)) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in EXHAUSTED):
            raise
        if on_exhausted:
            on_exhausted()
        asked = _SIZE.search(str(error))
        size = f"{asked[1]} more" if asked else "more than can be counted"
        limit = f"{capacity(device)} bytes of {device} (LOSSD_DEVICE)"
        raise TooLarge(f"Expected a call that fits the {limit}; got one that takes {size}.") from None


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
    """Let the C library give what is free back to the system: after what is much larger than most."""
    _call_allocator("malloc_trim", 0)


def _call_allocator(name: str, *arguments: int) -> None:
    """Call a function of glibc's allocator; other C libraries do without."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return
    function(*arguments)
