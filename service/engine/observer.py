"""Whoever wants to know what only engine and wire see: metrics are told, never asked."""

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(*what: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Observer:
    """What is called, in any thread, when something happens."""

    batch: Callable[[int], object] = _ignore
    """So many calls were computed as one."""
    exhausted: Callable[[], object] = _ignore
    """A call did not fit into the device's memory."""
    nonfinite: Callable[[str], object] = _ignore
    """An answer of that loss has an element that is not finite."""


NOBODY = Observer()
