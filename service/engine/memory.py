"""Refuse a call that needs more memory than its device has, instead of breaking."""

import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

from service.problems import TooLarge

EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
"""What torch's allocators say. They have no common exception."""
_SIZE = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)

on_exhausted: Callable[[], None] | None = None
"""Told of every call that did not fit."""


@contextmanager
def within_memory(device: torch.device) -> Generator[None]:
    """Let the body of a ``with`` allocate on a device.

    Raises:
        TooLarge: it asked for more than there is; states the limit and the size.
    """
    try:
        yield
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
