"""The account: the resources of every request, from its first byte in to its last byte out.

A `Hold` is the entry of one request: the bytes of its body, received and inflated, and of its answer until they are
sent, and callbacks that give back other resources, such as a place in the queue. It ends with its last user: when the
application has answered, no thread works on the request, and the last byte is sent or the connection is gone.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.problems import Busy
from service.settings import variable

SMALL = 64 * 1024
"""Bytes up to which a hold is never refused, so that small calls get through; the queue bounds their number."""


class Account:
    """What all requests of this process hold together; ``limit`` is in bytes. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.holds = 0
        """Requests that have not ended yet."""
        self.lock = threading.Lock()

    def refusal(self) -> Busy | None:
        """Return why new work is refused now, or None. Answers that clients do not read count too."""
        return _busy(self.limit) if self.bytes >= self.limit else None

    def open(self) -> "Hold":
        """Open the entry of a request; the caller is its first user and must call `Hold.leave`."""
        return Hold(self)


class Hold:
    """The resources of one request. Thread-safe, but the last user must leave on the event loop."""

    __slots__ = ("_account", "_at_end", "_users", "bytes", "gone")

    def __init__(self, account: Account) -> None:
        self.bytes = 0
        self.gone = False
        """Whether the client has left; set by whoever notices."""
        self._account = account
        self._users = 1
        self._at_end: list[Callable[[], object]] = []
        with account.lock:
            account.holds += 1

    def take(self, length: int) -> None:
        """Count more bytes.

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

    def add(self, length: int) -> None:
        """Count bytes that exist already, such as an answer; never refused."""
        with self._account.lock:
            self._account.bytes += length
            self.bytes += length

    def give(self, length: int) -> None:
        """Count fewer bytes."""
        self.add(-length)

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
        for give_back in self._at_end:
            give_back()


def _busy(limit: int) -> Busy:
    """Return the problem of a request for which there is no room."""
    most = f"{limit} bytes of requests at once ({variable('max_inflight_bytes')})"
    return Busy("bytes", most, retry_after=1)
