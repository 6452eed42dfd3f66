"""Refuse a call that needs more memory than its device has, or numbers than there are, instead of breaking."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

from service.problems import Fault, Invalid, TooLarge

EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
"""What torch's allocators say. They have no common exception."""
_SIZE = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


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
        asked = _SIZE.search(str(error))
        size = f"{asked[1]} more" if asked else "more than can be counted"
        limit = f"{capacity(device)} bytes of {device} (LOSSD_DEVICE)"
        raise TooLarge(f"Expected a call that fits the {limit}; got one that takes {size}.") from None


def capacity(device: torch.device) -> int:
    """Return the bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
