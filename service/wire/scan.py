"""Find the outermost arrays and long strings of a large JSON text.

The scan proves nothing: each piece is parsed separately, and so is the rest of the text. A wrong cut makes a piece that
is not JSON.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.problems import Fault, Invalid
from service.wire.text import BLOCK, TOO_DEEP, Body, Octets, Span, unreadable

LEAST = 1 << 10
"""Shortest array or string to cut out, in bytes: shorter ones are parsed faster with their neighbours."""
DEEPEST = 1024
"""Most levels of nesting; simdjson's limit."""
MOST_ARRAYS = 100_000
"""Most arrays of a text: each takes some microseconds."""
MOST_STRINGS = 64
"""Most strings of a text that `outline` searches by its quotes."""
NEAR = 16
"""Bytes after a name in which `outline` looks for the colon."""
TRIES = 3
"""Stretches of an array to search for a comma: one may lack it because its comma is in the next block."""

Places = NDArray[np.int64]
NOWHERE: Places = np.zeros(0, np.int64)


def outline(body: Body, start: int, end: int) -> list[Span]:
    """Return the long arrays and strings of a text of moderate length, none if it has many strings.

    Most requests have few members, and no strings in their arrays: their long members are found by the quotes alone.

    Raises:
        Unreadable: as `scan`.
        Invalid: as `scan`.
    """
    text = bytes(memoryview(body)[start:end])
    edges: list[int] = []
    place = text.find(b'"')
    while place >= 0:
        if len(edges) > 2 * MOST_STRINGS:
            return []
        edges.append(place)
        place = text.find(b'"', place + 1)
    plain = len(edges) % 2 == 0 and b"\\" not in text
    members = _members(text, edges) if plain else None
    if members is None:
        return scan(body, start, end)
    return [Span(body, start + low, start + high) for low, high in members]


def _members(text: bytes, edges: Sequence[int]) -> list[tuple[int, int]] | None:
    """Locate long members by the quotes; return None if anything long is not a member, or is inside an array."""
    found: list[tuple[int, int]] = []
    bounds, around = [-1, *edges, len(text)], 0
    for place in range(0, len(bounds), 2):
        low, high = bounds[place] + 1, bounds[place + 1]
        closing = bounds[place + 2] if place + 2 < len(bounds) else high
        if high - low >= LEAST:
            array = _array(text, low, high, closing + 1)
            # a longer array is read in pieces, between the commas that a scan finds
            if array is None or around or array[1] - array[0] > 2 * BLOCK:
                return None
            found.append(array)
            low = array[1]
        around += text.count(b"[", low, high) - text.count(b"]", low, high)
        if closing - high >= LEAST:
            if around or not text[low:high].rstrip().endswith(b":"):
                return None
            found.append((high, closing + 1))
    return found


def _array(text: bytes, low: int, high: int, behind: int) -> tuple[int, int] | None:
    """Locate the array between two strings; return None unless it is certain to be a member without strings.

    It ends before the brace that closes its object, or before a comma and the next name, whose colon is at ``behind``.
    """
    begin = text.find(b"[", low, high)
    brace = text.find(b"}", low, high)
    last = brace if brace >= 0 else high
    end = text.rfind(b"]", low, last) + 1
    if begin < 0 or end <= begin or text[low:begin].strip() != b":" or text.find(b"{", low, last) >= 0:
        return None
    closed = brace >= 0 or text[behind : behind + NEAR].lstrip().startswith(b":")
    return (begin, end) if closed else None


def scan(body: Body, start: int, end: int) -> list[Span]:
    """Return the outermost arrays and long strings in a part of a body, in order.

    Raises:
        Unreadable: brackets or quotes are unbalanced.
        Invalid: there are too many arrays.
    """
    scanner = _Scanner(body)
    for low in range(start, end, BLOCK):
        scanner.look(low, min(low + BLOCK, end))
    return scanner.found(end)


class _Block(NamedTuple):
    """The structure of a block that begins at ``low``.

    ``quotes`` begin and end strings, ``inside`` says whether the block begins in one, ``brackets`` are those outside
    strings, ``depths`` the number of open ones after each, and ``depth`` before the first.
    """

    low: int
    raw: bytes
    text: Octets
    quotes: Places
    inside: bool
    brackets: Places
    depths: Places
    depth: int

    def first_comma(self, level: int) -> int | None:
        """Return the first comma between elements of an array that begins before the block."""
        closing = _first_below(self.depths, 0, level)
        which = np.flatnonzero(self.depths[:closing] == level)[:TRIES]
        before = [-1] if self.depth == level else []
        return self._comma([*before, *which.tolist()], last=False)

    def last_comma(self, level: int, opened: int | None) -> int | None:
        """Return the last comma between elements of an array that ends after the block."""
        which = np.flatnonzero(self.depths[opened or 0 :] == level)[-TRIES:] + (opened or 0)
        before = [-1] if opened is None and self.depth == level else []
        return self._comma([*which[::-1].tolist(), *before], last=True)

    def _comma(self, places: list[int], *, last: bool) -> int | None:
        """Return the first comma after one of some brackets; -1 stands for the beginning of the block."""
        for place in places:
            begin = int(self.brackets[place]) + 1 if place >= 0 else 0
            end = int(self.brackets[place + 1]) if place + 1 < len(self.brackets) else len(self.text)
            if (comma := self.comma(begin, end, last=last)) is not None:
                return comma
        return None

    def comma(self, begin: int, end: int, *, last: bool) -> int | None:
        """Return the last or the first comma in a stretch without strings."""
        for _ in range(TRIES):
            place = self.raw.rfind(b",", begin, end) if last else self.raw.find(b",", begin, end)
            if place < 0:
                return None
            before = int(np.searchsorted(self.quotes, place)) if len(self.quotes) else 0
            if (before + self.inside) % 2 == 0:
                return self.low + place
            # it is in a string
            if last:
                end = int(self.quotes[before - 1]) if before else begin
            else:
                begin = int(self.quotes[before]) if before < len(self.quotes) else end
        return None


class _Scanner:
    """The state of the scan after each block.

    ``_array`` is the start of the open outermost array, ``_level`` its depth, ``_stuck`` whether the last block had no
    comma between its elements, as in the middle of a long one.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._view = memoryview(body)
        self._depth = 0
        self._string: int | None = None
        self._escaped = False
        self._strings: list[Span] = []
        self._arrays: list[Span] = []
        self._opened = 0
        self._array: int | None = None
        self._level = 0
        self._commas: list[int] = []
        self._stuck = False

    def look(self, low: int, high: int) -> None:
        """Scan the next block."""
        raw = bytes(self._view[low:high])
        text = np.frombuffer(raw, np.uint8)
        quotes, inside = self._quotes(raw, text), self._string is not None
        if inside and not len(quotes):
            self._stuck = True
            return
        if len(quotes):
            self._pair(quotes + low)
        brackets = _brackets(text)
        if inside or len(quotes):
            brackets = brackets[(np.searchsorted(quotes, brackets) + inside) % 2 == 0]
        # opening brackets have a bit that closing ones lack
        depths = self._depth + np.cumsum(np.where(text[brackets] & 2, 1, -1))
        block = _Block(low, raw, text, quotes, inside, brackets, depths, self._depth)
        self._check(block)
        if self._array is not None and self._stuck:
            self._cut(block.first_comma(self._level))
        opened = self._follow(block)
        if len(depths):
            self._depth = int(depths[-1])
        if self._array is not None:
            self._cut(block.last_comma(self._level, opened))

    def found(self, end: int) -> list[Span]:
        """Return the arrays and strings found in the whole text."""
        if self._string is not None or self._depth:
            raise unreadable(self._body, "unexpected end of data", end)
        starts = [array.start for array in self._arrays]

        def alone(string: Span) -> bool:
            before = bisect_right(starts, string.start)
            return not before or self._arrays[before - 1].end <= string.start

        return sorted([*self._arrays, *filter(alone, self._strings)], key=lambda span: span.start)

    def _quotes(self, raw: bytes, text: Octets) -> Places:
        """Return the quotes that begin or end a string: those after an even number of backslashes."""
        quotes = np.flatnonzero(text == ord('"')) if b'"' in raw else NOWHERE
        if b"\\" not in raw and not self._escaped:
            return quotes
        slashes = np.flatnonzero(text == ord("\\"))
        if self._escaped:
            slashes = np.concatenate(([-1], slashes))
        begins = np.diff(slashes, prepend=-3) != 1
        first = slashes[begins][np.cumsum(begins) - 1]
        escaped = np.zeros(len(text) + 1, np.bool_)
        escaped[slashes[(slashes - first) % 2 == 0] + 1] = True
        self._escaped = bool(escaped[-1])
        return quotes[~escaped[quotes]]

    def _pair(self, edges: Places) -> None:
        """Record the long strings that end in a block, and the one that stays open."""
        if self._string is not None:
            edges = np.concatenate(([self._string], edges))
        self._string = int(edges[-1]) if len(edges) % 2 else None
        starts, ends = edges[: len(edges) & ~1 : 2], edges[1::2]
        for place in np.flatnonzero(ends - starts >= LEAST):
            self._strings.append(Span(self._body, int(starts[place]), int(ends[place]) + 1))

    def _check(self, block: _Block) -> None:
        """Refuse a bracket without a counterpart, and too deep nesting."""
        if not len(block.depths):
            return
        if block.depths.min() < 0:
            place = block.low + int(block.brackets[int(np.argmax(block.depths < 0))])
            raise unreadable(self._body, "unexpected character", place)
        if block.depths.max() > DEEPEST:
            raise unreadable(self._body, TOO_DEEP)

    def _follow(self, block: _Block) -> int | None:
        """Follow the outermost arrays through a block; return the bracket that opened the last one in it."""
        squares = np.flatnonzero(block.text[block.brackets] == ord("["))
        opened, place = None, 0
        while True:
            if self._array is None:
                which = int(np.searchsorted(squares, place))
                if which == len(squares):
                    return opened
                opened = place = int(squares[which])
                self._open(block.low + int(block.brackets[place]), int(block.depths[place]))
            else:
                closing = _first_below(block.depths, place, self._level)
                if closing is None:
                    return opened
                place = closing
                self._close(block.low + int(block.brackets[place]) + 1)
            place += 1

    def _open(self, start: int, level: int) -> None:
        """Begin an array."""
        self._opened += 1
        if self._opened > MOST_ARRAYS:
            raise Invalid(Fault("", "size", f"Expected at most {MOST_ARRAYS} arrays; got more."))
        self._array, self._level, self._commas, self._stuck = start, level, [], False

    def _close(self, end: int) -> None:
        """End an array."""
        if self._array is not None and end - self._array >= LEAST:
            self._arrays.append(Span(self._body, self._array, end, tuple(self._commas)))
        self._array = None

    def _cut(self, comma: int | None) -> None:
        """Record a comma between elements of the open array, if it is new."""
        self._stuck = comma is None
        if comma is not None and comma not in self._commas[-1:]:
            self._commas.append(comma)


def _brackets(text: Octets) -> Places:
    """Return the positions of all brackets: they differ in three bits, which some other characters share."""
    places = np.flatnonzero((text | 0x26) == 0x7F)
    curly = text[places] | 0x20
    return places[(curly == ord("{")) | (curly == ord("}"))]


def _first_below(depths: Places, place: int, level: int) -> int | None:
    """Return the first position from ``place`` on with a depth below ``level``, searching in growing steps."""
    width = 64
    while place < len(depths):
        below = depths[place : place + width] < level
        if below.any():
            return place + int(below.argmax())
        place += width
        width *= 2
    return None
