"""Content codings of /v2, gzip and deflate: decode bodies within a limit, encode answers on request."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.datastructures import Headers

from service.admission.body import too_large
from service.problems import Unreadable, UnsupportedMedia, quoted

WINDOW = {"gzip": 31, "deflate": 15}
"""Window sizes as zlib takes them: 31 is gzip, 15 a zlib stream, which HTTP calls deflate."""
BLOCK = 1 << 16
PIECE = 1 << 20
"""Bytes to inflate at once."""
LEVEL = 1
"""The fastest: digits of floats hardly compress at any level."""
LEAST_SAVED = 0.1
"""Share of an answer's first bytes that a coding must save to be worth its time."""


def of_request(headers: Headers) -> str | None:
    """Return the content coding of a request, or None.

    Raises:
        UnsupportedMedia: it is neither gzip nor deflate.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in WINDOW:
        expected = " or ".join(WINDOW)
        raise UnsupportedMedia(f"Expected {expected} as the Content-Encoding, or none; got {quoted(coding)}.")
    return coding


def for_answer(headers: Headers) -> str | None:
    """Return the coding to use for an answer, None if the client accepts none that is available."""
    asked: dict[str, float] = {}
    for part in headers.get("accept-encoding", "").lower().split(","):
        coding, _, quality = part.partition(";")
        try:
            asked[coding.strip()] = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
    best = max(WINDOW, key=lambda coding: asked.get(coding, 0))
    return best if asked.get(best, 0) > 0 else None


def undo(coded: memoryview, coding: str, buffer: bytearray, limit: int, take: Callable[[int], None]) -> None:
    """Append the decoded body to a buffer; ``take`` is called with the size of each piece before the next is inflated.

    Raises:
        Unreadable: the body is not in this coding.
        TooLarge: the decoded body is over the limit.
        Busy: there is no room for more now.
    """
    inflater, before = zlib.decompressobj(WINDOW[coding]), len(buffer)
    for start in range(0, len(coded), BLOCK):
        for piece in _inflated(inflater, coded[start : start + BLOCK], coding):
            take(len(piece))
            buffer += piece
            if len(buffer) - before > limit:
                raise too_large("more after decompression", limit)
        if inflater.eof and (inflater.unused_data or start + BLOCK < len(coded)):
            raise Unreadable(f"Expected nothing after the end of the {coding} data; got more.")
    if not inflater.eof:
        raise Unreadable(f"Expected a complete {coding} body; got one that is cut off.")


def _inflated(inflater: Any, block: memoryview, coding: str) -> Iterator[bytes]:
    """Yield the decoded bytes of a block, in pieces."""
    rest: bytes | memoryview = block
    while True:
        try:
            piece = inflater.decompress(rest, PIECE)
        except zlib.error as error:
            raise Unreadable(f"Expected a body in {coding}; got something else: {error}.") from None
        yield piece
        rest = inflater.unconsumed_tail
        if not rest and len(piece) < PIECE:
            return


def apply(parts: Sequence[bytes | memoryview], coding: str) -> Sequence[bytes] | None:
    """Return an encoded answer, None if that would hardly be shorter."""
    longest = max(parts, key=len)
    if len(longest) > BLOCK and len(zlib.compress(longest[:BLOCK], LEVEL)) > (1 - LEAST_SAVED) * BLOCK:
        return None
    deflater = zlib.compressobj(LEVEL, wbits=WINDOW[coding])
    return [*map(deflater.compress, parts), deflater.flush()]
