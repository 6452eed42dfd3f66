"""The sending side of a connection: unsent bytes are accounted for, and dropped if the client stops reading."""

import asyncio
from collections.abc import Callable

from service.admission.account import Hold
from service.settings import Settings

LEAST = 1 << 14
"""Bytes a client must read within ``LOSSD_IDLE_S``, unless fewer are left."""
JOINED = 1 << 16
"""Largest answer whose parts are copied into one buffer, which is faster than sending several."""


class Outflow:
    """The unsent bytes of a connection, counted on ``hold``, the account entry of the request being answered.

    A client is too slow if it takes fewer than `LEAST` bytes in ``LOSSD_IDLE_S``, or if any byte waits longer than
    ``LOSSD_UPLOAD_S``, the time a request has to arrive. Buffers of the operating system are not visible here.
    """

    def __init__(self, transport: asyncio.Transport, settings: Settings, now: Callable[[], float]) -> None:
        # so that the transport reports when the last byte has been sent
        transport.set_write_buffer_limits(high=0)
        self.paused = False
        """Whether written bytes are still unsent."""
        self.hold: Hold | None = None
        self._transport = transport
        self._pause_s, self._whole_s = settings.idle_s, settings.upload_s
        self._now = now
        self._left = asyncio.Event()
        self._written = self._held = 0
        self._seen = self._goal = 0
        self._seen_at = self._goal_at = 0.0

    def write(self, *parts: bytes) -> None:
        """Write parts of an answer."""
        if self._transport.is_closing():
            return
        size = sum(map(len, parts))
        self._written += size
        if size <= JOINED:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)
        if self.paused and self.hold:
            self._held += size
            self.hold.add(size)

    async def left(self) -> None:
        """Wait until everything written has been sent, or the client is gone."""
        if self.paused:
            await self._left.wait()

    def pause(self) -> None:
        """Start watching the client: the socket did not take everything at once."""
        self.paused = True
        self._left.clear()
        self._seen, self._goal = self._written - self._transport.get_write_buffer_size(), self._written
        self._seen_at = self._goal_at = self._now()

    def resume(self) -> None:
        """Release the written bytes: they were sent, or the connection is gone."""
        self.paused = False
        if self.hold:
            self.hold.give(self._held)
        self._held = 0
        self._left.set()

    def stalls(self) -> bool:
        """Whether the client is too slow. Must be called more often than the shorter of the two limits."""
        now = self._now()
        left = self._written - self._transport.get_write_buffer_size()
        if left - self._seen >= LEAST:
            self._seen, self._seen_at = left, now
        if left >= self._goal:
            self._goal, self._goal_at = self._written, now
        return now - self._seen_at > self._pause_s or now - self._goal_at > self._whole_s
