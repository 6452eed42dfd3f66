"""The account: the resources of every request, from its first byte in to its last byte out.

A `Hold` is the entry of one request: the bytes of its body, received and inflated, and of its answer until they are
sent, its place among the accepted ones, and callbacks that give back other resources. It ends with its last user: when the
application has answered, no thread works on the request, and the last byte is sent or the connection is gone.
"""

import math
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import perf_counter

from service.problems import Busy
from service.settings import variable

SMALL = 64 * 1024
"""Bytes up to which a hold is never refused, so that small calls get through; the queue bounds their number."""


class Account:
    """What all requests of this process hold together; ``limit`` is in bytes. Bytes and users are counted in any thread.

    A request for work is ``active`` until it ends, and ``accepted`` once its body has arrived; ``capacity`` is the most of
    these.
    """

    def __init__(self, limit: int, capacity: int = sys.maxsize) -> None:
        self.limit = limit
        self.capacity = capacity
        self.bytes = 0
        self.holds = 0
        """Requests that have not ended yet."""
        self.active = 0
        self.accepted = 0
        self.pace = 0.01
        """Seconds in which an accepted request ends, on average."""
        self.lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether no more requests are accepted now."""
        return self.accepted >= self.capacity

    def refuse_if_full(self) -> None:
        """Refuse a request if there is no place for it.

        Raises:
            Busy: there is none; says when to retry.
        """
        if self.full:
            wait = max(1, math.ceil(self.accepted * self.pace))
            raise Busy("queue", f"{self.capacity} requests at once ({variable('max_queue')})", wait)

    def refusal(self) -> Busy | None:
        """Return why new work is refused now, or None. Answers that clients do not read count too."""
        return _busy(self.limit) if self.bytes >= self.limit else None

    def open(self) -> "Hold":
        """Open the entry of a request; the caller is its first user and must call `Hold.leave`."""
        return Hold(self)


class Hold:
    """The resources of one request. Thread-safe, but the last user must leave on the event loop."""

    __slots__ = ("_accepted_at", "_account", "_at_end", "_is_active", "_taken", "_users", "bytes", "gone")

    def __init__(self, account: Account) -> None:
        self.bytes = self._taken = 0
        self.gone = False
        """Whether the client has left; set by whoever notices."""
        self._account = account
        self._users = 1
        self._is_active = False
        self._accepted_at: float | None = None
        self._at_end: list[Callable[[], object]] = []
        with account.lock:
            account.holds += 1

    def begin(self) -> None:
        """Count the request as active."""
        self._is_active = True
        self._account.active += 1

    def accept(self) -> None:
        """Give the request, whose body has arrived, a place among the accepted ones.

        Raises:
            Busy: there is none; says when to retry.
        """
        self._account.refuse_if_full()
        self._account.accepted += 1
        self._accepted_at = perf_counter()

    def take(self, length: int) -> None:
        """Count more bytes of the body, received or inflated.

        Raises:
            Busy: the total would exceed the limit, and other requests hold part of it.
        """
        account = self._account
        with account.lock:
            large, alone = self.bytes + length > SMALL, account.bytes <= self.bytes
            if large and not alone and account.bytes + length > account.limit:
                raise _busy(account.limit)
            account.bytes += length
            self.bytes += length
            self._taken += length

    def drop(self, length: int) -> None:
        """Count fewer bytes of the body."""
        self._taken -= length
        self.add(-length)

    def add(self, length: int) -> None:
        """Count bytes that exist already, such as an answer; never refused."""
        with self._account.lock:
            self._account.bytes += length
            self.bytes += length

    def give(self, length: int) -> None:
        """Count fewer bytes."""
        self.add(-length)

    def replace_body(self, length: int) -> None:
        """Count an answer of this many bytes instead of the body from which it was made."""
        self.add(length - self._taken)
        self._taken = 0

    def at_end(self, give_back: Callable[[], object]) -> None:
        """Schedule a call for the end of the request."""
        self._at_end.append(give_back)

    @contextmanager
    def used(self) -> Generator[None]:
        """Keep the entry open in the body of a ``with``, even if the request ends meanwhile."""
        self.use()
        try:
            yield
        finally:
            self.leave()

    def use(self) -> None:
        """Keep the entry open until a matching `leave`."""
        with self._account.lock:
            self._users += 1

    def leave(self) -> None:
        """Stop using the entry; the last user ends it."""
        account = self._account
        with account.lock:
            self._users -= 1
            if self._users:
                return
            account.bytes -= self.bytes
            account.holds -= 1
            self.bytes = 0
        account.active -= self._is_active
        if self._accepted_at is not None:
            # this request's share of the time, during which the others were answered too
            share = (perf_counter() - self._accepted_at) / account.accepted
            account.pace += 0.05 * (share - account.pace)
            account.accepted -= 1
        for give_back in self._at_end:
            give_back()


def _busy(limit: int) -> Busy:
    """Return the problem of a request for which there is no room."""
    most = f"{limit} bytes of requests at once ({variable('max_inflight_bytes')})"
    return Busy("bytes", most, retry_after=1)
