"""Content codings: gzip and deflate, undone within a limit, applied where they are asked for.

What clients send is inflated by zlib, which has seen everything; answers are deflated by ISA-L, which takes a quarter
of zlib's time for the same size: 1 ms for 390 kB of JSON, where zlib's fastest takes 4.4 ms.
"""

import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from isal import isal_zlib

from service.admission.body import too_large
from service.problems import Unreadable, UnsupportedMedia, quoted
from service.wire.text import Body

WINDOW = {"gzip": 31, "deflate": 15}
"""What zlib calls them: deflate is wrapped as zlib wraps it."""
DEFLATE: Any = isal_zlib
"""ISA-L, whose types are known in part."""
BLOCK = 1 << 16
PIECE = 1 << 18
"""Bytes that are inflated at once."""
LEVEL = 1
"""The digits of floats hardly shrink any further, however hard one tries."""
LEAST_SAVED = 0.1
"""Of a long answer's first bytes, the share that a coding must save: it would only take time else."""
MOST_RATIO = 1032
"""How many times longer than what is sent deflate's output can be."""
ANNOUNCED = 4
"""Bytes at the end of gzip data that say how long the content is, modulo 2^32."""


def of_request(headers: Mapping[bytes, bytes]) -> str | None:
    """Return how a request's body is coded.

    Raises:
        UnsupportedMedia: it is coded otherwise than with gzip or deflate.
    """
    if b"content-encoding" not in headers:
        return None
    coding = headers[b"content-encoding"].decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in WINDOW:
        expected = " or ".join(WINDOW)
        raise UnsupportedMedia(f"Expected {expected} as the Content-Encoding, or none; got {quoted(coding)}.")
    return coding


def for_answer(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the coding that a client asks its answer to have; None where it asks for none that there is."""
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
    """A coded body on its way into a buffer, a part at a time; ``done`` once all that it holds is there.

    ``take`` is told of each piece before there is more.

    Raises:
        TooLarge: it announces more than the limit.
    """

    def __init__(
        self, coded: Body, coding: str, buffer: bytearray, limit: int, take: Callable[[int], None]
    ) -> None:
        self.done = False
        announced = int.from_bytes(coded[-ANNOUNCED:], "little") if coding == "gzip" else 0
        # the end of a body that was cut off announces anything
        if limit < announced <= MOST_RATIO * len(coded):
            raise too_large(f"one that {coding} makes {announced} bytes long", limit)
        self._steps = self._inflate(memoryview(coded), coding, buffer, limit, take)

    def run(self, most: int) -> None:
        """Inflate until all is there, or about so many bytes more are.

        Raises:
            Unreadable: the body is not coded so.
            TooLarge: it holds more than the limit.
            Busy: there is no room for more now.
        """
        for length in self._steps:
            most -= length
            if most <= 0:
                return
        self.done = True

    def _inflate(
        self, coded: memoryview, coding: str, buffer: bytearray, limit: int, take: Callable[[int], None]
    ) -> Generator[int]:
        """Append to the buffer, and yield the length of each piece."""
        undo, before = inflater(coding), len(buffer)
        for start in range(0, len(coded), BLOCK):
            for piece in inflated(undo, coded[start : start + BLOCK], coding):
                take(len(piece))
                buffer += piece
                if len(buffer) - before > limit:
                    raise too_large(f"one that {coding} makes longer", limit)
                yield len(piece)
        if not undo.eof:
            raise cut_off(coding)


def inflater(coding: str) -> Any:
    """Return what `inflated` reads blocks with."""
    return zlib.decompressobj(WINDOW[coding])


def inflated(inflater: Any, block: bytes | memoryview, coding: str) -> Iterator[bytes]:
    """Yield what a block holds, in pieces.

    Raises:
        Unreadable: it is not coded so, or there is more behind the end.
    """
    rest = block
    while True:
        if inflater.eof and len(rest):
            raise Unreadable(f"Expected nothing behind the end of the {coding} data; got more.")
        try:
            piece = inflater.decompress(rest, PIECE)
        except zlib.error as error:
            raise Unreadable(f"Expected a body in {coding}; got something else: {error}.") from None
        if piece:
            yield piece
        rest = inflater.unconsumed_tail or inflater.unused_data
        if not rest and (inflater.eof or len(piece) < PIECE):
            return


def cut_off(coding: str) -> Unreadable:
    """Return the problem of a body that ends too soon."""
    return Unreadable(f"Expected a whole body in {coding}; got one that ends before its end.")


def apply(
    parts: Sequence[bytes | memoryview], coding: str, least_saved: float = LEAST_SAVED
) -> Sequence[bytes] | None:
    """Return an answer in a coding; None where that would hardly shorten it."""
    longest = max(parts, key=len)
    sample = longest[:BLOCK]
    if len(longest) > BLOCK and len(DEFLATE.compress(sample, LEVEL)) > (1 - least_saved) * BLOCK:
        return None
    coder = deflater(coding)
    return [*map(coder.compress, parts), coder.flush()]


def deflater(coding: str) -> Any:
    """Return what codes an answer: its ``compress`` a part, its ``flush`` the end."""
    return DEFLATE.compressobj(LEVEL, wbits=WINDOW[coding])


def at_once(deflater: Any, part: bytes) -> bytes:
    """Code a part of a stream so that it can be read at once."""
    return deflater.compress(part) + deflater.flush(DEFLATE.Z_SYNC_FLUSH)
