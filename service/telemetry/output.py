"""Standard output, written by a thread: a reader that stops reading blocks nobody."""

import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Thread

MOST_WAITING = 1 << 20
"""Bytes of waiting lines, some thousands of them; more are dropped and counted."""


class LineOutput:
    """Writes lines to a file descriptor; never blocks and never raises.

    ``notice`` makes the line that reports how many were dropped. It is written once the waiting lines are.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], bytes]) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._blocks: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = self._noticed = 0
        self._changed = Condition()
        self._thread: Thread | None = None

    def write(self, lines: bytes) -> None:
        """Queue whole lines for writing, or drop them if too many are waiting."""
        with self._changed:
            if self._waiting + len(lines) > MOST_WAITING:
                self._dropped += lines.count(b"\n")
                return
            self._blocks.append(lines)
            self._waiting += len(lines)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until all is written, at most this long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, seconds)

    @property
    def dropped(self) -> int:
        """The number of lines dropped since the start."""
        return self._dropped

    def _run(self) -> None:
        """Write lines for as long as the process lives."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._blocks)
                block = self._blocks.popleft()
            written = self._write_all(block)
            with self._changed:
                self._waiting -= len(block)
                if not written:
                    self._dropped += block.count(b"\n")
                elif not self._waiting and (more := self._dropped - self._noticed):
                    self._noticed = self._dropped
                    notice = self._notice(more)
                    self._blocks.append(notice)
                    self._waiting += len(notice)
                self._changed.notify_all()

    def _write_all(self, lines: bytes) -> bool:
        """Write all of it, blocking; return whether that worked."""
        with suppress(OSError):
            while lines:
                try:
                    lines = lines[os.write(self._descriptor, lines) :]
                except BlockingIOError:
                    # another process has made the descriptor non-blocking
                    select.select([], [self._descriptor], [])
        return not lines
