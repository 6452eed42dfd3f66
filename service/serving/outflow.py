"""The way out of a connection: what was written and has not left is held, and dropped if its client does not read on."""

import asyncio
from collections.abc import Callable

from service.admission.account import Hold
from service.settings import Settings

LEAST = 1 << 14
"""Bytes that a client has to read within ``LOSSD_IDLE_S``, unless fewer are left."""
JOINED = 1 << 16
"""Bytes up to which the parts of an answer are copied into one, which is sent faster than several."""


class Outflow:
    """The bytes on their way to a client, which are on the account of the request that is answered, ``hold``.

    A client is too slow if fewer than `LEAST` bytes leave in ``LOSSD_IDLE_S``, or if one byte does not within
    ``LOSSD_UPLOAD_S``, as much time as a request has to arrive. The system's own buffers are not seen here.
    """

    def __init__(self, transport: asyncio.Transport, settings: Settings, now: Callable[[], float]) -> None:
        # so that it is known when the last byte has left
        transport.set_write_buffer_limits(high=0)
        self.paused = False
        """Whether some of what was written has not left."""
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
        """Wait until all that was written has left, or nobody is there to read it."""
        if self.paused:
            await self._left.wait()

    def pause(self) -> None:
        """Watch the client: what was written could not be sent at once."""
        self.paused = True
        self._left.clear()
        self._seen, self._goal = self._written - self._transport.get_write_buffer_size(), self._written
        self._seen_at = self._goal_at = self._now()

    def resume(self) -> None:
        """Let go of what was written: it has left, or the connection is gone."""
        self.paused = False
        if self.hold:
            self.hold.give(self._held)
        self._held = 0
        self._left.set()

    def stalls(self) -> bool:
        """Whether the client is too slow. It has to be asked more often than within any of the limits."""
        now = self._now()
        left = self._written - self._transport.get_write_buffer_size()
        if left - self._seen >= LEAST:
            self._seen, self._seen_at = left, now
        if left >= self._goal:
            self._goal, self._goal_at = self._written, now
        return now - self._seen_at > self._pause_s or now - self._goal_at > self._whole_s
