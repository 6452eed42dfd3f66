"""Results that are kept for the next request like it, within a bound in bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, those used last, of at most so many bytes together. Threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def find(self, key: K) -> V | None:
        """Return a value, or None if it is not kept."""
        with self._lock:
            if (found := self._kept.get(key)) is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep a value of so many bytes, and no longer those used least."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = value, size
                self._left -= size
            while self._left < 0:
                self._left += self._kept.popitem(last=False)[1][1]
