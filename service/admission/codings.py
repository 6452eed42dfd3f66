"""Content codings, gzip and deflate: decode bodies within a limit, encode answers on request.

Bodies, which may be hostile, are decoded by zlib. Answers are encoded by ISA-L in a quarter of zlib's time: 390 kB of JSON
take 1 ms, zlib's fastest level 4.4 ms, for the same size.
"""

import sys
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from math import inf
from time import thread_time
from typing import Any

from isal import isal_zlib

from service.admission.body import too_large
from service.problems import Unreadable, UnsupportedMedia, quoted
from service.wire.text import Body

HEADER = b"content-encoding"
WINDOW = {"gzip": 31, "deflate": 15}
"""Window sizes as zlib takes them: 31 is gzip, 15 a zlib stream, which HTTP calls deflate."""
DEFLATE: Any = isal_zlib
"""ISA-L, whose type hints are incomplete."""
BLOCK = 1 << 16
CODED = 1 << 14
"""Encoded bytes to inflate at once: Huffman tables without a byte of content take up to 1.4 ms."""
PIECE = 1 << 18
"""Most bytes to inflate at once."""
SHORT = 1400
"""Bytes of an answer that fit into one packet anyway."""
LEVEL = 1
"""Digits of floats hardly compress better at higher levels."""
LEAST_SAVED = 0.1
"""Share of an answer's first bytes that a coding must save to be worth its time."""
MOST_RATIO = 1032
"""Largest ratio of deflate: decoded to encoded length."""
ANNOUNCED = 4
"""Bytes at the end of gzip data that hold the decoded length modulo 2^32."""


def of_request(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the content coding of a request, or None.

    Raises:
        UnsupportedMedia: it is neither gzip nor deflate.
    """
    if HEADER not in headers:
        return None
    coding = headers[HEADER].decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in WINDOW:
        expected = " or ".join(WINDOW)
        raise UnsupportedMedia(f"Expected {expected} as the Content-Encoding, or none; got {quoted(coding)}.")
    return coding


def for_answer(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the coding to use for an answer, None if the client accepts none that is available."""
    if b"accept-encoding" not in headers:
        return None
    asked: dict[str, float] = {}
    for part in headers[b"accept-encoding"].decode("latin-1").lower().split(","):
        coding, _, quality = part.partition(";")
        try:
            asked[coding.strip()] = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
    best = max(WINDOW, key=lambda coding: asked.get(coding, 0))
    return best if asked.get(best, 0) > 0 else None


class Inflation:
    """Decodes a body into a buffer, a part at a time; ``done`` when complete.

    ``take`` is called with the size of each piece before the next is inflated, and with 0 after each encoded block.

    Raises:
        TooLarge: the body declares a decoded length over the limit.
    """

    def __init__(
        self, coded: Body, coding: str, buffer: bytearray, limit: int, take: Callable[[int], None]
    ) -> None:
        self.done = False
        announced = int.from_bytes(coded[-ANNOUNCED:], "little") if coding == "gzip" else 0
        # the last bytes of a truncated body are arbitrary
        if limit < announced <= MOST_RATIO * len(coded):
            raise too_large(f"{announced} after decompression", limit)
        self._steps = self._inflate(memoryview(coded), coding, buffer, limit, take)

    def run(self, most: int = sys.maxsize, seconds: float = inf) -> None:
        """Inflate to the end, or until about ``most`` more bytes are decoded or this thread has run so many ``seconds``.

        Raises:
            Unreadable: the body is not in this coding.
            TooLarge: the decoded body is over the limit.
            Busy: there is no room for more now.
        """
        end = thread_time() + seconds
        for length in self._steps:
            most -= length
            if most <= 0 or thread_time() >= end:
                return
        self.done = True

    def _inflate(
        self, coded: memoryview, coding: str, buffer: bytearray, limit: int, take: Callable[[int], None]
    ) -> Generator[int]:
        """Append to the buffer; yield the length of each piece, and 0 after each encoded block, which may have none."""
        undo, before = inflater(coding), len(buffer)
        for start in range(0, len(coded), CODED):
            for piece in inflated(undo, coded[start : start + CODED], coding):
                take(len(piece))
                buffer += piece
                if len(buffer) - before > limit:
                    raise too_large("more after decompression", limit)
                yield len(piece)
            take(0)
            yield 0
        if not undo.eof:
            raise cut_off(coding)


def inflater(coding: str) -> Any:
    """Return a decoder for `inflated`."""
    return zlib.decompressobj(WINDOW[coding])


def inflated(inflater: Any, block: bytes | memoryview, coding: str, most: int = PIECE) -> Iterator[bytes]:
    """Yield the decoded bytes of a block, in pieces of at most so many bytes.

    Raises:
        Unreadable: it is not in this coding, or continues after the end.
    """
    rest = block
    while True:
        if inflater.eof and len(rest):
            raise Unreadable(f"Expected nothing after the end of the {coding} data; got more.")
        try:
            piece = inflater.decompress(rest, most)
        except zlib.error as error:
            raise Unreadable(f"Expected a body in {coding}; got something else: {error}.") from None
        if piece:
            yield piece
        rest = inflater.unconsumed_tail or inflater.unused_data
        if not rest and (inflater.eof or len(piece) < most):
            return


def cut_off(coding: str) -> Unreadable:
    """Return the problem for a truncated body."""
    return Unreadable(f"Expected a complete {coding} body; got one that is cut off.")


def apply(
    parts: Sequence[bytes | memoryview], coding: str, least_saved: float = LEAST_SAVED
) -> Sequence[bytes] | None:
    """Return an encoded answer, None if that would hardly be shorter."""
    longest = max(parts, key=len)
    sample = longest[:BLOCK]
    if len(longest) > BLOCK and len(DEFLATE.compress(sample, LEVEL)) > (1 - least_saved) * BLOCK:
        return None
    coder = deflater(coding)
    return [*map(coder.compress, parts), coder.flush()]


def deflater(coding: str) -> Any:
    """Return an encoder with zlib's interface."""
    return DEFLATE.compressobj(LEVEL, wbits=WINDOW[coding])


def at_once(deflater: Any, part: bytes) -> bytes:
    """Encode a part of a stream so that the client can decode it at once."""
    return deflater.compress(part) + deflater.flush(DEFLATE.Z_SYNC_FLUSH)
