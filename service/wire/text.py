"""Parts of a JSON text; long ones are processed a block at a time, so that other threads get their turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.problems import Unreadable

BLOCK = 1 << 18
"""Bytes processed at once: parsing a block of `[1],` blocks the interpreter for about 10 ms."""
TOO_DEEP = "its arrays and objects are nested too deep"

Body = bytes | bytearray | memoryview
"""The bytes sent by a client."""
Octets = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """An unparsed array or string of a body, with its brackets or quotes.

    ``commas`` lie between elements of the array: at least one in two blocks, and one on either side of each longer
    element.
    """

    body: Body
    start: int
    end: int
    commas: Sequence[int] = ()

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def text(self) -> bytes:
        """The whole text."""
        return bytes(memoryview(self.body)[self.start : self.end])

    @property
    def is_array(self) -> bool:
        """Whether it is an array, not a string."""
        return self.body[self.start] == ord("[")

    def pieces(self, length: int) -> Iterator[bytes]:
        """Yield the characters of the string as written, this many at a time."""
        for start in range(self.start + 1, self.end - 1, length):
            yield bytes(memoryview(self.body)[start : min(start + length, self.end - 1)])

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the bounds of runs of the array's elements, without the commas between the runs.

        Raises:
            Unreadable: there is nothing between two commas.
        """
        last = self.start
        for comma in (*self.commas, self.end - 1):
            start, end = trim(self.body, last + 1, comma)
            if start == end and self.commas:
                raise unreadable(self.body, "unexpected character", comma)
            yield start, end
            last = comma


def trim(body: Body, start: int, end: int) -> tuple[int, int]:
    """Return the bounds of a part of a body without surrounding white space."""
    octets = np.frombuffer(body, np.uint8)
    while start < end and octets[start] <= ord(" "):
        found = np.flatnonzero(octets[start : min(start + BLOCK, end)] > ord(" "))
        start = start + int(found[0]) if len(found) else min(start + BLOCK, end)
    while start < end and octets[end - 1] <= ord(" "):
        low = max(start, end - BLOCK)
        found = np.flatnonzero(octets[low:end] > ord(" "))
        end = low + int(found[-1]) + 1 if len(found) else low
    return start, end


def unreadable(body: Body, reason: str, place: int | None = None) -> Unreadable:
    """Return the problem of a body that is not JSON, with the place of the error."""
    if place is None:
        return Unreadable(f"The body is not readable JSON: {reason}.")
    octets = np.frombuffer(body, np.uint8, count=place)
    line, begin = 1, 0
    for low in range(0, place, BLOCK):
        ends = np.flatnonzero(octets[low : low + BLOCK] == ord("\n"))
        line += len(ends)
        begin = low + int(ends[-1]) + 1 if len(ends) else begin
    where = f"line {line} column {place - begin + 1} (byte {place})"
    return Unreadable(f"The body is not readable JSON: {reason}: {where}.")
