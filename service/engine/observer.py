"""Callbacks for events that only engine and wire see, such as metrics count."""

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(*what: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Callbacks, called in any thread."""

    batch: Callable[[int], object] = _ignore
    """Calls were computed as one; the argument is their number."""
    exhausted: Callable[[], object] = _ignore
    """A call did not fit into the device's memory."""
    nonfinite: Callable[[str], object] = _ignore
    """An answer of this loss has a non-finite element."""


NOBODY = Observer()
