"""Content codings of the inference door: gzip and deflate, undone within a limit, applied where they are asked for."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.datastructures import Headers

from service.admission.body import too_large
from service.problems import Unreadable, UnsupportedMedia, quoted

WINDOW = {"gzip": 31, "deflate": 15}
"""What zlib calls them: deflate is wrapped as zlib wraps it."""
BLOCK = 1 << 16
PIECE = 1 << 20
"""Bytes that are inflated at once."""
LEVEL = 1
"""The fastest: the digits of floats hardly shrink, however hard one tries."""
LEAST_SAVED = 0.1
"""Of a long answer's first bytes, the share that a coding must save: it would only take time else."""


def of_request(headers: Headers) -> str | None:
    """Return how a request's body is coded.

    Raises:
        UnsupportedMedia: it is coded otherwise than with gzip or deflate.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in WINDOW:
        expected = " or ".join(WINDOW)
        raise UnsupportedMedia(f"Expected {expected} as the Content-Encoding, or none; got {quoted(coding)}.")
    return coding


def for_answer(headers: Headers) -> str | None:
    """Return the coding that a client asks its answer to have; None where it asks for none that there is."""
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
    """Append to a buffer what a coded body holds; ``take`` is told of each piece before there is more.

    Raises:
        Unreadable: it is not coded so.
        TooLarge: it holds more than the limit.
        Busy: there is no room for more now.
    """
    inflater, before = zlib.decompressobj(WINDOW[coding]), len(buffer)
    for start in range(0, len(coded), BLOCK):
        for piece in _inflated(inflater, coded[start : start + BLOCK], coding):
            take(len(piece))
            buffer += piece
            if len(buffer) - before > limit:
                raise too_large(f"one that {coding} makes longer", limit)
        if inflater.eof and (inflater.unused_data or start + BLOCK < len(coded)):
            raise Unreadable(f"Expected nothing behind the end of the {coding} data; got more.")
    if not inflater.eof:
        raise Unreadable(f"Expected a whole body in {coding}; got one that ends before its end.")


def _inflated(inflater: Any, block: memoryview, coding: str) -> Iterator[bytes]:
    """Yield what a block holds, in pieces."""
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
    """Return an answer in a coding; None where that would hardly shorten it."""
    longest = max(parts, key=len)
    if len(longest) > BLOCK and len(zlib.compress(longest[:BLOCK], LEVEL)) > (1 - LEAST_SAVED) * BLOCK:
        return None
    deflater = zlib.compressobj(LEVEL, wbits=WINDOW[coding])
    return [*map(deflater.compress, parts), deflater.flush()]
