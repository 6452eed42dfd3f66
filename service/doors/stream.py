"""POST /v1/batch as NDJSON: one item a line in, one result a line out while the upload still runs.

Whatever has arrived is answered before more is read, so that memory stays bounded for any length: a client
that does not read its results is not read from.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Message, Receive, Scope, Send

from service.admission.account import Hold
from service.admission.body import ClientGone
from service.doors.batch import Batches
from service.doors.waiting import Due, in_thread
from service.problems import Busy, Problem, TooLarge
from service.settings import Settings
from service.telemetry import metrics
from service.wire import batch
from service.wire.batch import Batch

MEDIA = "application/x-ndjson"
Line = tuple[int, bytes | Problem]
"""A line's number, from 1, and what it holds, or why it could not be had."""


class Streams:
    """Answers streams of items, a window of lines at a time."""

    def __init__(self, batches: Batches, settings: Settings, pool: ThreadPoolExecutor) -> None:
        self.batches = batches
        self.settings = settings
        self.pool = pool

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer line by line, until the upload ends or the client leaves."""
        hold: Hold = scope["state"]["hold"]
        hold.at_end(self.batches.queue.permit())
        headers = [(b"content-type", MEDIA.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for window in _windows(receive, self.settings.max_line_bytes, hold):
            asked = await in_thread(self.pool, hold, self._decode, window)
            # what a client sends on is not a sign that it has left
            try:
                outcomes = await self.batches.compute(asked, hold, _silence, Due(self.settings.deadline_s))
            except Problem as problem:
                outcomes = [[[problem] * len(group.places)] for group in asked.groups]
                metrics.count_items(asked, outcomes)
            answer = await in_thread(self.pool, hold, self._encode, window, asked, outcomes)
            await send({"type": "http.response.body", "body": answer, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _decode(self, window: Sequence[Line]) -> Batch:
        """Read the lines of a window."""
        return batch.decode_lines(self.batches.catalogue, [line for _, line in window])

    def _encode(
        self, window: Sequence[Line], asked: Batch, outcomes: Sequence[Sequence[batch.Outcome]]
    ) -> bytes:
        """Write the results of a window."""
        return batch.encode_lines(
            asked, outcomes, [number for number, _ in window], self.batches.queue.device
        )


async def _windows(receive: Receive, most: int, hold: Hold) -> AsyncGenerator[list[Line]]:
    """Yield the lines that have arrived, as they arrive; blank ones only count.

    What has arrived of a line that is not whole is held.

    Raises:
        ClientGone: the client left before the end.
    """
    part, lost, number, more = bytearray(), None, 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        first, *others = message.get("body", b"").split(b"\n")
        more = message.get("more_body", False)
        lost = lost or _lose(len(part) + len(first), len(first), most, hold)
        if lost:
            # no more is kept than tells so
            hold.give(len(part))
            part.clear()
        else:
            part += first
        if not others and more:
            continue
        hold.give(len(part))
        *others, rest = others if more else [*others, b""]
        whole = [lost or bytes(part), *(_whole(line, most) for line in others)]
        lost = _lose(len(rest), len(rest), most, hold)
        part = bytearray() if lost else bytearray(rest)
        numbered = enumerate(whole, number + 1)
        number += len(whole)
        window = [(n, line) for n, line in numbered if isinstance(line, Problem) or line.strip()]
        if window:
            yield window


def _whole(line: bytes, most: int) -> bytes | Problem:
    """Return a line, or the problem that it is too long."""
    if len(line) <= most:
        return line
    return TooLarge(f"Expected a line of at most {most} bytes (LOSSD_MAX_LINE_BYTES); got a longer one.")


def _lose(length: int, added: int, most: int, hold: Hold) -> Problem | None:
    """Hold what is added to a line of which no more than its begin is here; return why that cannot be."""
    if length > most:
        return TooLarge(f"Expected a line of at most {most} bytes (LOSSD_MAX_LINE_BYTES); got a longer one.")
    try:
        hold.take(added)
    except Busy as busy:
        return busy
    return None


async def _silence() -> Message:
    """Wait for nothing: the connection is looked at where the next line is read."""
    await asyncio.Event().wait()
    return {}
