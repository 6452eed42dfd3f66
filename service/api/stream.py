"""POST /v1/batch as NDJSON: one item a line in, one result a line out while the upload still runs.

Whatever has arrived is answered before more is read, so that memory stays bounded for any length: a client
that does not read its results is not read from.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Message, Receive, Send

from service.api import metrics
from service.api.batch import Batches
from service.api.waiting import ClientGone
from service.problems import Problem, TooLarge
from service.settings import Settings
from service.wire import batch
from service.wire.batch import Batch

MEDIA = "application/x-ndjson"
Line = tuple[int, bytes | None]
"""A line's number, from 1, and what it holds; None where that is too long."""


class Streams:
    """Answers streams of items, a window of lines at a time."""

    def __init__(self, batches: Batches, settings: Settings, pool: ThreadPoolExecutor) -> None:
        self.batches = batches
        self.settings = settings
        self.pool = pool

    async def answer(self, receive: Receive, send: Send) -> None:
        """Answer line by line, until the upload ends or the client leaves."""
        loop = asyncio.get_running_loop()
        with self.batches.queue.permit():
            headers = [(b"content-type", MEDIA.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for window in _windows(receive, self.settings.max_line_bytes):
                asked = await loop.run_in_executor(self.pool, self._decode, window)
                # what a client sends on is not a sign that it has left
                try:
                    outcomes = await self.batches.compute(asked, _silence, self.settings.deadline_s)
                except Problem as problem:
                    outcomes = [[[problem] * len(group.places)] for group in asked.groups]
                    metrics.count_items(asked, outcomes)
                answer = await loop.run_in_executor(self.pool, self._encode, window, asked, outcomes)
                await send({"type": "http.response.body", "body": answer, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def _decode(self, window: Sequence[Line]) -> Batch:
        """Read the lines of a window."""
        limit = self.settings.max_line_bytes
        long = TooLarge(f"Expected a line of at most {limit} bytes (LOSSD_MAX_LINE_BYTES); got a longer one.")
        return batch.decode_lines(
            self.batches.catalogue, [long if line is None else line for _, line in window]
        )

    def _encode(
        self, window: Sequence[Line], asked: Batch, outcomes: Sequence[Sequence[batch.Outcome]]
    ) -> bytes:
        """Write the results of a window."""
        return batch.encode_lines(
            asked, outcomes, [number for number, _ in window], self.batches.queue.device
        )


async def _windows(receive: Receive, most: int) -> AsyncGenerator[list[Line]]:
    """Yield the lines that have arrived, as they arrive; blank ones only count.

    Raises:
        ClientGone: the client left before the end.
    """
    parts, held, number, more = list[bytes](), 0, 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        first, *others = message.get("body", b"").split(b"\n")
        more = message.get("more_body", False)
        held += len(first)
        # of a line that is too long no more is kept than tells so
        parts += [first] if held <= most else []
        if not others and more:
            continue
        whole = [(held, b"".join(parts)), *((len(line), line) for line in others)]
        held, last = whole.pop() if more else (0, b"")
        parts = [last]
        numbered = enumerate(whole, number + 1)
        number += len(whole)
        window = [
            (n, line if size <= most else None) for n, (size, line) in numbered if size > most or line.strip()
        ]
        if window:
            yield window


async def _silence() -> Message:
    """Wait for nothing: the connection is looked at where the next line is read."""
    await asyncio.Event().wait()
    return {}
