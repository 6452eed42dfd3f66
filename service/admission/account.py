"""The one account: what every request holds, from its first byte in to its last byte out.

A `Hold` is one request's entry: bytes (received, inflated, decoded, computed, written and not yet sent), and what is
given back at the end, such as a place in the queue. It ends when nobody uses it any more: the application has
answered, no thread works on it, and the last byte of the answer has left or the connection is gone.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.problems import Busy
from service.settings import variable

SMALL = 64 * 1024
"""Bytes up to which a hold is never refused: small calls pass large ones, and the queue bounds how many there are."""


class Account:
    """What all requests of this process hold together; ``limit`` is in bytes. Threads may use it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.holds = 0
        """Requests that have not ended."""
        self.lock = threading.Lock()

    def refusal(self) -> Busy | None:
        """Return why no further work is begun now; None if it is. Answers that are not read lead to it."""
        return _busy(self.limit) if self.bytes >= self.limit else None

    def open(self) -> "Hold":
        """Open the entry of a request; whoever opens it is its first user, and must `Hold.leave`."""
        return Hold(self)


class Hold:
    """What one request holds. Threads may use it, but the last user leaves on the event loop."""

    __slots__ = ("_account", "_at_end", "_users", "bytes", "gone")

    def __init__(self, account: Account) -> None:
        self.bytes = 0
        self.gone = False
        """Whether nobody waits for the answer any more: set by whoever sees the client leave."""
        self._account = account
        self._users = 1
        self._at_end: list[Callable[[], object]] = []
        with account.lock:
            account.holds += 1

    def take(self, length: int) -> None:
        """Hold so many bytes more.

        Raises:
            Busy: there would be more than the limit, and others hold some of them.
        """
        account = self._account
        with account.lock:
            large, alone = self.bytes + length > SMALL, account.bytes <= self.bytes
            if large and not alone and account.bytes + length > account.limit:
                raise _busy(account.limit)
            account.bytes += length
            self.bytes += length

    def add(self, length: int) -> None:
        """Hold so many bytes more that are there already, such as an answer: they are counted, not refused."""
        with self._account.lock:
            self._account.bytes += length
            self.bytes += length

    def give(self, length: int) -> None:
        """Hold so many bytes less."""
        self.add(-length)

    def at_end(self, give_back: Callable[[], object]) -> None:
        """Call something when the request has ended: nothing is given back before."""
        self._at_end.append(give_back)

    @contextmanager
    def used(self) -> Generator[None]:
        """Keep the entry open while the body of a ``with`` runs, whatever becomes of the request meanwhile."""
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
        """Use it no more; the last user ends it."""
        account = self._account
        with account.lock:
            self._users -= 1
            if self._users:
                return
            account.bytes -= self.bytes
            account.holds -= 1
            self.bytes = 0
        for give_back in self._at_end:
            give_back()


def _busy(limit: int) -> Busy:
    """Return the problem of a request for which there is no room."""
    most = f"{limit} bytes of requests at once ({variable('max_inflight_bytes')})"
    return Busy("bytes", most, retry_after=1)
