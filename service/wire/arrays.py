"""Read long JSON arrays into tensors, in pieces, into one buffer."""

from typing import Any

import numpy as np

from service.engine.call import Sent
from service.wire import json
from service.wire.json import MOST_SHOWN, show
from service.wire.numbers import EXACT, MAX_RANK, How, Shape, Values, invalid, sent, shape_of, values_of
from service.wire.scan import scan
from service.wire.text import BLOCK, Span, unreadable

PIECE = 2 * BLOCK
"""Most bytes parsed at once: two neighbouring commas of a span are closer, unless an element is longer."""
RISING = [np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.float64)]
"""Dtypes of the buffer: the first that can hold all numbers is used."""


def read_long(span: Span, how: How) -> Sent:
    """Read nested arrays.

    Raises:
        Invalid: they are ragged, or hold other values than numbers.
        Unreadable: they are not JSON.
    """
    if len(span) <= PIECE:
        return sent(*_parsed(span, span.start + 1, span.end - 1, None, how, 0))
    numbers = _Numbers(len(span), how.whole)
    shape = _read_span(span, None, how, numbers)
    return sent(numbers.values, shape)


class _Numbers:
    """A buffer for numbers that arrive in pieces, in the smallest of the `RISING` dtypes that holds all of them."""

    def __init__(self, size: int, whole: bool) -> None:
        """Prepare for the numbers of an array of ``size`` bytes."""
        self._size = size
        self._whole = whole
        self._count = 0
        self._kept: Values = np.empty(0, RISING[0])

    @property
    def values(self) -> Values:
        """All numbers."""
        return self._kept[: self._count]

    def add(self, piece: Values, size: int) -> None:
        """Append numbers that took ``size`` bytes of JSON."""
        if (
            self._whole
            and piece.dtype == np.float64
            and self._kept.dtype != np.float64
            and _are_integers(piece)
        ):
            piece = piece.astype(np.int64)
        dtype = max(self._kept.dtype, piece.dtype, key=RISING.index)
        count = self._count + len(piece)
        if count > len(self._kept):
            # the other numbers are about as long as these; with its comma, a number takes at least two bytes
            expected = count + len(piece) * self._size // size
            self._move(min(max(expected, 2 * count), self._size // 2 + 1), dtype)
        elif dtype != self._kept.dtype:
            self._move(len(self._kept), dtype)
        self._kept[self._count : count] = piece
        self._count = count

    def _move(self, length: int, dtype: np.dtype[Any]) -> None:
        """Move to a buffer of another length or dtype."""
        before, self._kept = self.values, np.empty(length, dtype)
        for start in range(0, len(before), BLOCK):
            self.values[start : start + BLOCK] = before[start : start + BLOCK]


def _are_integers(values: Values) -> bool:
    """Return whether all floats are integers that float64 holds exactly."""
    return bool(((values == np.trunc(values)) & (np.abs(values) < EXACT)).all())


def _read_span(span: Span, expected: Shape | None, how: How, numbers: _Numbers) -> Shape:
    """Read a long array and return its shape, which must be ``expected`` unless that is None."""
    if how.level == MAX_RANK:
        raise invalid(how.where, "rank", f"at most {MAX_RANK} dimensions", "more")
    if expected == ():
        raise invalid(how.path, "ragged", "a number", show(span))
    inner, count = None if expected is None else expected[1:], 0
    for start, end in span.runs():
        if start == end:
            continue
        if end - start <= PIECE:
            values, found = _parsed(span, start, end, inner, how, count)
            numbers.add(values, end - start)
        else:
            element = _long_element(span, start, end, inner, how.at(count))
            found = (1, *_read_span(element, inner, how.at(count), numbers))
        count, inner = count + found[0], found[1:]
    shape = (0,) if inner is None else (count, *inner)
    if expected and shape[0] != expected[0]:
        raise invalid(how.path, "ragged", f"an array of length {expected[0]}", f"length {shape[0]}")
    return shape


def _parsed(
    span: Span, start: int, end: int, inner: Shape | None, how: How, first: int
) -> tuple[Values, Shape]:
    """Read a run of elements of a long array, each of the shape ``inner``; ``first`` is the index of the first one."""
    text = b"".join((b"[", memoryview(span.body)[start:end], b"]"))
    try:
        array = json.parse(text, words=how.nonfinite)
    except json.Broken as broken:
        place = None if broken.place is None else min(start + broken.place - 1, end)
        raise unreadable(span.body, broken.reason, place) from None
    shape = shape_of(array, how.where) if inner is None else (len(array), *inner)
    if how.level + len(shape) > MAX_RANK:
        raise invalid(how.where, "rank", f"at most {MAX_RANK} dimensions", "more")
    return values_of(array, shape, how, text, first), shape


def _long_element(span: Span, start: int, end: int, expected: Shape | None, how: How) -> Span:
    """Return an element of a long array that is itself a long array.

    Raises:
        Invalid: it is another value.
        Unreadable: it is not JSON.
    """
    if span.body[start] in b'"{':
        shown = bytes(memoryview(span.body)[start : start + MOST_SHOWN - 3]).decode(errors="replace")
        code, wanted = ("ragged", f"an array of length {expected[0]}") if expected else ("type", "a number")
        raise invalid(how.path, code, wanted, f"{shown}...")
    if span.body[start] != ord("["):
        raise unreadable(span.body, "a number of too many digits", start)
    first = next(iter(scan(span.body, start, end)), None)
    if first is None or first.end != end:
        raise unreadable(span.body, "unexpected character", end if first is None else first.end)
    return first
