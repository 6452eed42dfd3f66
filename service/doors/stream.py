"""POST /v1/batch as NDJSON: one item a line in, one result a line out while the upload is still running.

Lines that have arrived are answered before more are read, so memory is bounded for streams of any length: the server
does not read from a client that does not read its results.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from service.admission import codings, query
from service.admission.account import Hold
from service.admission.body import ClientGone
from service.catalogue.registry import Catalogues
from service.doors.batch import answer_apart, outcomes_of, parts_of, seconds_apart
from service.doors.coded import coded_headers, inflating
from service.doors.pipeline import Pipeline, Work
from service.doors.waiting import Due
from service.engine.composition import Planner
from service.engine.fuse import Results
from service.problems import Busy, Problem, TooLarge
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire import batch
from service.wire.batch import Batch

MEDIA = "application/x-ndjson"
WINDOW = 1000
"""Lines processed at once: 64 kB may hold 32,000, whose faults would take megabytes."""
NO_ECHO: Mapping[str, Any] = {}
Line = tuple[int, bytes | Problem]
"""A line's number, from 1, and its bytes, or the problem that it has."""


class Streams:
    """Answers streams of items, a window of lines at a time."""

    def __init__(
        self,
        catalogues: Catalogues,
        settings: Settings,
        pipeline: Pipeline,
        planner: Planner,
        metrics: Metrics,
    ) -> None:
        self.catalogues = catalogues
        self.settings = settings
        self.pipeline = pipeline
        self.planner = planner
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer line by line until the upload ends or the client leaves."""
        query.read_query(scope)
        scope["state"]["hold"].accept()
        asked = scope["state"]["headers"]
        coding, accepts = codings.of_request(asked), codings.for_answer(asked)
        whole = self.pipeline.begin(scope, _silence, 0, self.settings.deadline_s)
        if coding:
            receive = inflating(receive, coding)
        headers = [(b"content-type", MEDIA.encode()), *(coded_headers(accepts) if accepts else [])]
        deflater = codings.deflater(accepts) if accepts else None
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for window in _windows(receive, self.settings.max_line_bytes, whole.hold):
            answer = await self._answer(window, whole)
            answer = codings.at_once(deflater, answer) if deflater else answer
            await send({"type": "http.response.body", "body": answer, "more_body": True})
        await send({"type": "http.response.body", "body": deflater.flush() if deflater else b""})

    async def _answer(self, window: Sequence[Line], whole: Work) -> bytes:
        """Return the results of the lines in a window, which has its own deadline."""
        size = sum(len(line) for _, line in window if isinstance(line, bytes))
        work = replace(whole, size=size, due=Due(self.settings.deadline_s, monotonic()))
        lines, numbers = [line for _, line in window], [number for number, _ in window]
        queue = self.pipeline.queue

        def decode() -> Batch:
            return batch.decode_lines(self.catalogues, lines, self.planner)

        def encode(asked: Batch, results: Sequence[Sequence[Results]]) -> bytes:
            outcomes = outcomes_of(results)
            apart = answer_apart(asked, queue)
            self.metrics.count_items(asked, outcomes, apart)
            return batch.encode_lines(asked, outcomes, numbers, queue.observer, apart)

        work.hold.add(size)
        try:
            return await self.pipeline.batch(work, decode, parts_of, encode, seconds_apart)
        except Problem as problem:
            refused = dict.fromkeys(range(len(window)), problem.with_traceback(None))
            late = Batch([NO_ECHO] * len(window), [], refused)
            return encode(late, [])
        finally:
            work.hold.give(size)


async def _windows(receive: Receive, most: int, hold: Hold) -> AsyncGenerator[list[Line]]:
    """Yield lines as they arrive; blank ones are counted only.

    The received part of an incomplete line is held. A decompression error becomes the result of the last line.

    Raises:
        ClientGone: the client left before the end.
    """
    part, lost, number, more = bytearray(), None, 0, True
    while more:
        try:
            message = await receive()
        except Problem as problem:
            hold.give(len(part))
            yield [(number + 1, problem)]
            return
        # a message may inflate to many, before which nobody asks the connection
        if message["type"] == "http.disconnect" or hold.gone:
            raise ClientGone
        first, *others = message.get("body", b"").split(b"\n")
        more = message.get("more_body", False)
        lost = lost or _lose(len(part) + len(first), len(first), most, hold)
        if lost:
            # only the fact that the line is too long is kept
            hold.give(len(part))
            part.clear()
        else:
            part += first
        if not others and more:
            continue
        hold.give(len(part))
        *others, rest = others if more else [*others, b""]
        first = lost or bytes(part)
        window: list[Line] = [(number + 1, first)] if lost or part.strip() else []
        # there may be hundreds of thousands of blank lines
        window += [
            (n, _whole(line, most))
            for n, line in enumerate(others, number + 2)
            if line and (len(line) > most or line.strip())
        ]
        number += 1 + len(others)
        lost = _lose(len(rest), len(rest), most, hold)
        part = bytearray() if lost else bytearray(rest)
        for start in range(0, len(window), WINDOW):
            yield window[start : start + WINDOW]


def _whole(line: bytes, most: int) -> bytes | Problem:
    """Return a line, or the problem that it is too long."""
    if len(line) <= most:
        return line
    return _too_long(most)


def _lose(length: int, added: int, most: int, hold: Hold) -> Problem | None:
    """Account for a piece of an incomplete line; return a problem if the line is too long or there is no room."""
    if length > most:
        return _too_long(most)
    try:
        hold.take(added)
    except Busy as busy:
        return busy
    return None


def _too_long(most: int) -> TooLarge:
    """Return the problem of a line over the limit."""
    return TooLarge(f"Expected a line of at most {most} bytes (LOSSD_MAX_LINE_BYTES); got a longer one.")


async def _silence() -> Message:
    """Never return: the connection is checked where the next line is read."""
    await asyncio.Event().wait()
    return {}
