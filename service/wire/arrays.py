"""Read JSON arrays into tensors: long ones in pieces, into one buffer."""

from typing import Any

import numpy as np
import torch

from service.engine.call import Sent
from service.wire import json
from service.wire.json import MOST_SHOWN, show
from service.wire.numbers import EXACT, MAX_RANK, How, Shape, Values, invalid, shape_of, values_of
from service.wire.scan import scan
from service.wire.text import BLOCK, Span, unreadable

RISING = [np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.float64)]
"""Dtypes of the buffer: the first that can hold all numbers is used."""


def read_array(array: Any, how: How) -> Sent:
    """Read nested JSON arrays.

    Raises:
        Invalid: they are ragged, or hold other values than numbers.
        Unreadable: a part that is parsed only here is not JSON.
    """
    if isinstance(array, Span):
        # a number takes at least two bytes with its comma
        numbers = _Numbers(len(array) // 2 + 1, how.whole)
        shape = _read_span(array, None, how, numbers)
        values = numbers.values
    else:
        shape = shape_of(array, how.where)
        values = values_of(array, shape, how)
    tensor = torch.as_tensor(values) if values.size else torch.zeros(shape)
    return Sent(tensor.reshape(shape), addressable=True, any_rank=shape == (0,))


class _Numbers:
    """A buffer for numbers that arrive in pieces, in the smallest of the `RISING` dtypes that holds all of them."""

    def __init__(self, most: int, whole: bool) -> None:
        self._whole = whole
        self._count = 0
        # pages that are never written take no memory
        self._kept = np.empty(most, RISING[0])

    @property
    def values(self) -> Values:
        """All numbers."""
        return self._kept[: self._count]

    def add(self, piece: Values) -> None:
        """Append numbers."""
        if (
            self._whole
            and piece.dtype == np.float64
            and self._kept.dtype != np.float64
            and _are_integers(piece)
        ):
            piece = piece.astype(np.int64)
        dtype = max(self._kept.dtype, piece.dtype, key=RISING.index)
        if dtype != self._kept.dtype:
            before, self._kept = self.values, np.empty(len(self._kept), dtype)
            for start in range(0, len(before), BLOCK):
                self.values[start : start + BLOCK] = before[start : start + BLOCK]
        self._kept[self._count : self._count + len(piece)] = piece
        self._count += len(piece)


def _are_integers(values: Values) -> bool:
    """Return whether all floats are integers that float64 holds exactly."""
    return bool(((values == np.trunc(values)) & (np.abs(values) < EXACT)).all())


def _read_span(span: Span, expected: Shape | None, how: How, numbers: _Numbers) -> Shape:
    """Read a long array and return its shape, which must be ``expected`` unless that is None."""
    if how.level > MAX_RANK:
        raise invalid(how.where, "rank", f"at most {MAX_RANK} dimensions", "more")
    if expected == ():
        raise invalid(how.path, "ragged", "a number", show(span))
    inner, count = None if expected is None else expected[1:], 0
    for start, end in span.runs():
        if start == end:
            continue
        if end - start <= 2 * BLOCK:
            found = _read_run(span, start, end, inner, how, count, numbers)
        else:
            element = _long_element(span, start, end, inner, how.at(count))
            found = (1, *_read_span(element, inner, how.at(count), numbers))
        count, inner = count + found[0], found[1:]
    shape = (0,) if inner is None else (count, *inner)
    if expected and shape[0] != expected[0]:
        raise invalid(how.path, "ragged", f"an array of length {expected[0]}", f"length {shape[0]}")
    return shape


def _read_run(
    span: Span, start: int, end: int, inner: Shape | None, how: How, first: int, numbers: _Numbers
) -> Shape:
    """Read a run of elements of a long array, each of the shape ``inner``; ``first`` is the index of the first one."""
    text = b"[%b]" % memoryview(span.body)[start:end]
    try:
        array = json.parse(text, words=how.nonfinite)
    except json.Broken as broken:
        place = None if broken.place is None else min(start + broken.place - 1, end)
        raise unreadable(span.body, broken.reason, place) from None
    shape = shape_of(array, how.where) if inner is None else (len(array), *inner)
    if how.level + len(shape) > MAX_RANK + 1:
        raise invalid(how.where, "rank", f"at most {MAX_RANK} dimensions", "more")
    numbers.add(values_of(array, shape, how, text, first))
    return shape


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
