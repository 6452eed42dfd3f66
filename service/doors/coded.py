"""Receive JSON bodies, decompressed if necessary, and compress answers.

The decoded length is unknown beforehand. Decompression starts on the event loop, continues in the quick lane and ends in
the slow one, so that bodies that grow a thousandfold cannot fill the lane of small calls.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from math import inf

from starlette.types import Message, Receive, Scope

from service.admission import body, codings, query
from service.catalogue.rounds import go_on
from service.doors.front import JSON, Answer
from service.doors.pipeline import LARGE, Pipeline, Work
from service.doors.waiting import TIMEOUT, deadline
from service.engine import cost
from service.problems import TooLarge
from service.settings import Settings
from service.wire.text import Body

STEPS = (
    (1 << 18, cost.INLINE_S, 0.0),
    (1 << 24, cost.QUICK_S, 2 * cost.INLINE_S),
    (sys.maxsize, inf, cost.QUICK_S),
)
"""Most bytes and seconds of each step, and the estimated seconds that choose its lane: inline, quick, slow."""
FREE = 1 << 25
"""Decoded bytes of a stream that are allowed at any ratio: they cost a second or two at most."""
MOST_RATIO = 100
"""Largest ratio of decoded to encoded bytes beyond that; streams of different lines reach 50."""
LEAST_SAVED = 0.3
"""Share that compression of a long answer must save: digits save more than half, base64 a quarter."""


async def begin(pipeline: Pipeline, scope: Scope, receive: Receive, settings: Settings) -> Work:
    """Accept a JSON request, and return its work with its body.

    Raises:
        Invalid: it has query parameters.
        Unreadable: the body is not in its declared coding, or the deadline is not a number.
        UnsupportedMedia: it is not JSON, or the coding is neither gzip nor deflate.
        TooLarge: it is longer than the limit, or declares to be.
        Busy: there is no room for it now.
        ClientGone: the client left before the end.
    """
    if scope.get("query_string"):
        query.read_query(scope)
    headers = scope["state"]["headers"]
    seconds = deadline(headers, settings.deadline_s) if TIMEOUT in headers else settings.deadline_s
    coding = codings.of_request(headers) if codings.HEADER in headers else None
    received = await body.receive_all(scope, receive, settings)
    work = pipeline.begin(scope, receive, len(received), seconds)
    if coding:
        buffer = bytearray()
        coded, received = received, buffer
        await inflate(pipeline, work, coded, coding, buffer, settings.max_body_bytes)
    work.held.append(received)
    return work


async def inflate(
    pipeline: Pipeline, work: Work, coded: Body, coding: str, buffer: bytearray, limit: int
) -> None:
    """Append a decoded body to a buffer and release the encoded one.

    Raises:
        Unreadable: the body is not in this coding.
        TooLarge: the decoded body is over the limit.
        Busy: there is no room for it now.
        ClientGone: the client left before it was decoded.
    """

    def take(length: int) -> None:
        go_on()
        work.hold.take(length)

    inflation = codings.Inflation(coded, coding, buffer, limit, take)
    try:
        for most, seconds, estimate in STEPS:
            if not inflation.done:
                step = partial(work.timed, "decode", inflation.run, most, seconds)
                await pipeline.run(work, step, estimate)
    finally:
        work.size = len(buffer)
        if work.size > LARGE:
            pipeline.forget(work)
    work.hold.drop(len(coded))


def inflating(receive: Receive, coding: str) -> Receive:
    """Return a ``receive`` that decodes a stream, a piece at a time.

    It raises `Unreadable` if the stream is not in this coding, and `TooLarge` if a long stream has an absurd ratio.
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
            for start in range(0, len(block), codings.CODED):
                coded = memoryview(block)[start : start + codings.CODED]
                for piece in codings.inflated(inflater, coded, coding, codings.BLOCK):
                    length += len(piece)
                    _refuse_absurd(length, sent)
                    yield {"type": "http.request", "body": piece, "more_body": True}
                    # others run between two pieces, of which a message may have a thousand
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
        if not inflater.eof:
            raise codings.cut_off(coding)
        yield {"type": "http.request", "body": b"", "more_body": False}

    return messages().__anext__


def _refuse_absurd(length: int, sent: int) -> None:
    """Refuse a long stream that has grown too much."""
    if length > max(FREE, MOST_RATIO * sent):
        raise TooLarge(
            f"Expected a stream that grows at most {MOST_RATIO} times by decompression beyond {FREE} bytes; "
            f"got {length} bytes from {sent}."
        )


def json_answer(parts: Sequence[bytes], headers: Mapping[bytes, bytes]) -> Answer:
    """Return a JSON answer, compressed if the request's headers ask for it and it is worth it."""
    accepts = codings.for_answer(headers) if sum(map(len, parts)) > codings.SHORT else None
    return coded_answer([JSON], parts, accepts, LEAST_SAVED)


def coded_answer(
    headers: Sequence[tuple[bytes, bytes]],
    parts: Sequence[bytes | memoryview],
    coding: str | None,
    least_saved: float = codings.LEAST_SAVED,
) -> Answer:
    """Return an answer with its length, compressed if there is a coding that saves enough."""
    if coding and (coded := codings.apply(parts, coding, least_saved)):
        parts, headers = coded, [*headers, *coded_headers(coding)]
    return Answer([*headers, (b"content-length", b"%d" % sum(map(len, parts)))], parts)


def coded_headers(coding: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a compressed answer."""
    return [(b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")]
