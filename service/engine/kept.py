"""Values that are dear to compute, kept within a number of bytes; those used least recently go first."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, of at most so many bytes together. Thread-safe; values must be immutable."""

    def __init__(self, most_bytes: int) -> None:
        self._most = self._left = most_bytes
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
        """Keep a value of so many bytes in place of another one of the same key, unless it is larger than the limit."""
        with self._lock:
            self._forget(key)
            if size <= self._most:
                self._kept[key] = value, size
                self._left -= size
            while self._left < 0:
                self._forget(next(iter(self._kept)))

    def drop(self, key: K) -> None:
        """Keep nothing under a key."""
        with self._lock:
            self._forget(key)

    def _forget(self, key: K) -> None:
        """Remove a value, if there is one."""
        if (found := self._kept.pop(key, None)) is not None:
            self._left += found[1]
