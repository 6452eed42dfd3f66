"""Values that are dear to compute, kept within a number of bytes; those used least recently go first."""

from collections import OrderedDict
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A value that knows its memory."""

    @property
    def bytes(self) -> int: ...


S = TypeVar("S", bound=Sized)


class Cache(Generic[S]):
    """A value for each evaluation, by its id. Thread-safe; values must be immutable."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = OrderedDict[int, S]()
        self._lock = Lock()

    def get(self, evaluation: int) -> S | None:
        """Return the value of an evaluation, if it is kept."""
        with self._lock:
            if evaluation in self._kept:
                self._kept.move_to_end(evaluation)
            return self._kept.get(evaluation)

    def keep(self, evaluation: int, value: S) -> None:
        """Keep a value in place of another one of the same evaluation, unless it is larger than the limit."""
        with self._lock:
            self._kept.pop(evaluation, None)
            if value.bytes <= self._limit:
                self._kept[evaluation] = value
            while sum(one.bytes for one in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)

    def drop(self, evaluation: int) -> None:
        """Keep nothing of an evaluation."""
        with self._lock:
            self._kept.pop(evaluation, None)
