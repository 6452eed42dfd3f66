"""Bodies in gzip or deflate: inflated where that holds up nobody, and answers that come back so.

What a body inflates to is not known before, so it is begun on the event loop, and goes on in the quick lane and then
in the slow one: a body that inflates to a thousand times its length cannot fill the lane of small calls.
"""

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial

from starlette.types import Message, Receive, Scope

from service.admission import body, codings
from service.doors.front import JSON, Answer
from service.doors.pipeline import Pipeline, Work
from service.doors.waiting import deadline
from service.engine import cost
from service.problems import TooLarge
from service.settings import Settings
from service.wire.text import Body

STEPS = ((1 << 18, 0.0), (1 << 24, 2 * cost.INLINE_S), (sys.maxsize, cost.QUICK_S))
"""Bytes that are inflated at once, and the seconds that say where: 0.5 ms, 40 ms, and whatever is left."""
SHORT = 1400
"""Bytes of an answer that fit one packet, coded or not."""
FREE = 1 << 25
"""Bytes that a coded stream may become, however little is sent for them: a bomb of as many costs a second or two."""
MOST_RATIO = 100
"""How many times longer than what is sent a stream may become beyond that: lines that differ reach 50."""
LEAST_SAVED = 0.3
"""The share that coding a long answer must save: digits lose half, base64 a quarter."""


async def begin(
    pipeline: Pipeline, scope: Scope, receive: Receive, settings: Settings
) -> tuple[Work, list[Body]]:
    """Accept a JSON request; return it with its body, which whoever decodes takes out: the rest needs the room.

    Raises:
        Unreadable: the body is not coded as it says, or the deadline is no number.
        UnsupportedMedia: it is not JSON, or in another coding.
        TooLarge: it is longer than the limit, or would be.
        Busy: there is no room for it now.
        ClientGone: the client left before all of it was here.
    """
    seconds, coding = deadline(scope, settings.deadline_s), codings.of_request(dict(scope["headers"]))
    held = [await body.read(scope, receive, settings)]
    work = pipeline.begin(scope, receive, len(held[0]), seconds)
    if coding:
        buffer = bytearray()
        await inflate(pipeline, work, held.pop(), coding, buffer, settings.max_body_bytes)
        held.append(buffer)
    return work, held


async def inflate(
    pipeline: Pipeline, work: Work, coded: Body, coding: str, buffer: bytearray, limit: int
) -> None:
    """Append to a buffer what a request's body holds, which is let go of.

    Raises:
        Unreadable: it is not coded so.
        TooLarge: it holds more than the limit.
        Busy: there is no room for it now.
    """
    inflation = codings.Inflation(coded, coding, buffer, limit, work.hold.take)
    with work.stages.measure("decode"):
        for most, seconds in STEPS:
            if not inflation.done:
                await pipeline.run(work, partial(inflation.run, most), seconds)
    work.hold.give(len(coded))
    work.size = len(buffer)


def inflating(receive: Receive, coding: str) -> Receive:
    """Return what receives the content of a coded stream, a piece at a time.

    It raises `Unreadable` where the stream is not coded so, and `TooLarge` where it is long and hardly anything was
    sent for it.
    """

    async def messages() -> AsyncGenerator[Message]:
        inflater, sent, length, more = codings.inflater(coding), 0, 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                yield message
                return
            block, more = message.get("body", b""), message.get("more_body", False)
            sent += len(block)
            for piece in codings.inflated(inflater, block, coding):
                length += len(piece)
                if length > max(FREE, MOST_RATIO * sent):
                    raise TooLarge(
                        f"Expected a stream that {coding} makes at most {MOST_RATIO} times as long beyond "
                        f"{FREE} bytes; got {length} bytes for {sent}."
                    )
                yield {"type": "http.request", "body": piece, "more_body": True}
        if not inflater.eof:
            raise codings.cut_off(coding)
        yield {"type": "http.request", "body": b"", "more_body": False}

    return messages().__anext__


def json_answer(parts: Sequence[bytes], headers: Mapping[bytes, bytes]) -> Answer:
    """Return a JSON document as an answer to a request with those headers, coded where that is asked for and worth it."""
    told, size = [JSON], sum(map(len, parts))
    accepts = codings.for_answer(headers) if size > SHORT else None
    if accepts and (coded := codings.apply(parts, accepts, LEAST_SAVED)):
        parts, size = coded, sum(map(len, coded))
        told += coded_headers(accepts)
    return Answer([*told, (b"content-length", b"%d" % size)], parts)


def coded_headers(coding: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer in a coding."""
    return [(b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")]
