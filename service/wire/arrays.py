"""JSON arrays to tensors: shapes are walked once, numbers come in a row, and long arrays are read in pieces.

simdjson's flat buffer forgets the nesting, so the shape is read off the first element of each level, every other
length is compared with it, and what stands in place of a number is found. Only what is wrong somewhere is looked
through element by element.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from math import inf, nan, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.engine.call import Sent
from service.problems import Fault, Invalid, pointer
from service.wire import json
from service.wire.json import MOST_SHOWN, are_arrays, show
from service.wire.scan import scan
from service.wire.text import BLOCK, Span, unreadable

MAX_RANK = 32
NUMBERS = {bool, int, float}
NONFINITE: dict[Any, float] = {None: nan, "NaN": nan, "Infinity": inf, "-Infinity": -inf}
"""What stands for a number that JSON does not have, where a door reads such."""
EXACT = 2.0**53
"""Floats from here on may stand for an integer that float64 does not have."""
LEAST = -(2.0**63)
"""The float that integers just below 64 bits are read as."""
DENSE = 32
"""Bytes of an array up to which to compare its brackets takes less time than to ask for its length."""
RISING = [np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.float64)]
"""What numbers are kept as: the first that holds all of them."""

Path = tuple[str | int, ...]
Shape = tuple[int, ...]
Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class How:
    """How numbers are read: with all digits of large ``whole`` ones, with words for those that are not finite.

    ``where`` is the tensor's place in the request, ``index`` that of an array in the tensor.
    """

    where: Path = ()
    whole: bool = False
    nonfinite: bool = False
    index: Shape = ()

    @property
    def level(self) -> int:
        """How many arrays are around."""
        return len(self.index)

    @property
    def path(self) -> Path:
        """The place of the array in the request."""
        return (*self.where, *self.index)

    @property
    def words(self) -> Collection[Any]:
        """What stands for numbers."""
        return NONFINITE if self.nonfinite else ()

    def at(self, place: int) -> "How":
        """Return how an element is read."""
        return replace(self, index=(*self.index, place))

    def to(self, index: Shape, first: int) -> Path:
        """Return the path to an element by its index behind the ``first`` elements."""
        return (*self.path, index[0] + first, *index[1:])


def read_array(array: Any, how: How) -> Sent:
    """Read nested JSON arrays.

    Raises:
        Invalid: they are ragged, or hold something else than numbers.
        Unreadable: a part of them that was not parsed before is not JSON.
    """
    if isinstance(array, Span):
        # a number takes two bytes at least, with the comma behind it
        numbers = _Numbers(len(array) // 2 + 1, how.whole)
        shape = _read_span(array, None, how, numbers)
        values = numbers.values
    else:
        shape = shape_of(array, how.where)
        values = _values(array, shape, how)
    tensor = torch.as_tensor(values) if values.size else torch.zeros(shape)
    return Sent(tensor.reshape(shape), addressable=True, any_rank=shape == (0,))


def shape_of(array: Any, where: Path = ()) -> Shape:
    """Return the lengths of the arrays on the way to the first number.

    Raises:
        Invalid: there are more of them than any tensor has dimensions.
    """
    shape: list[int] = []
    while json.is_array(array):
        if len(shape) == MAX_RANK:
            raise _invalid(where, "rank", f"at most {MAX_RANK} dimensions", "more")
        shape.append(len(array))
        if not shape[-1]:
            break
        array = array[0]
    return tuple(shape)


def is_rectangular(array: Any, shape: Shape) -> bool:
    """Tell whether every array above the numbers is as long as the shape says."""
    try:
        for depth in range(1, len(shape)):
            if not set(map(len, _level(array, depth))) <= {shape[depth]}:
                return False
    except TypeError:
        return False
    # an empty string or object is as long as an empty array, and has no elements that would give it away
    return 0 not in shape or are_arrays(_level(array, len(shape) - 1))


def holds_no_arrays(array: Any, rank: int) -> bool:
    """Tell whether nothing but numbers stands where numbers belong: the flat buffer has those of arrays, too."""
    rows = array.as_list()
    for _ in range(rank - 2):
        rows = chain.from_iterable(rows)
    try:
        if rank < 2:
            sum(rows)
            return True
        # a sum fails at an array or a word, at C speed
        deque(map(sum, rows), maxlen=0)
    except TypeError:
        return False
    return True


class _Numbers:
    """Up to so many numbers that come in pieces, in the least of the `RISING` dtypes that holds all of them."""

    def __init__(self, most: int, whole: bool) -> None:
        self._whole = whole
        self._count = 0
        # memory that is not written to takes none
        self._kept = np.empty(most, RISING[0])

    @property
    def values(self) -> Values:
        """All of them."""
        return self._kept[: self._count]

    def add(self, piece: Values) -> None:
        """Keep some more."""
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
    """Tell whether floats are integers of which none can be meant to be another."""
    return bool(((values == np.trunc(values)) & (np.abs(values) < EXACT)).all())


def _read_span(span: Span, expected: Shape | None, how: How, numbers: _Numbers) -> Shape:
    """Read a long array, and return its shape, which must be the one that is expected, if one is."""
    if how.level > MAX_RANK:
        raise _invalid(how.where, "rank", f"at most {MAX_RANK} dimensions", "more")
    if expected == ():
        raise _invalid(how.path, "ragged", "a number", show(span))
    inner, count = None if expected is None else expected[1:], 0
    for start, end in span.runs():
        if start == end:
            continue
        if end - start <= 2 * BLOCK:
            found = _read_run(span, start, end, inner, how, count, numbers)
        else:
            element = _long_element(span, start, end, how.at(count))
            found = (1, *_read_span(element, inner, how.at(count), numbers))
        count, inner = count + found[0], found[1:]
    shape = (0,) if inner is None else (count, *inner)
    if expected and shape[0] != expected[0]:
        raise _invalid(how.path, "ragged", f"an array of length {expected[0]}", f"length {shape[0]}")
    return shape


def _read_run(
    span: Span, start: int, end: int, inner: Shape | None, how: How, first: int, numbers: _Numbers
) -> Shape:
    """Read some elements of a long array, each of the shape ``inner``; ``first`` is the place of the first."""
    text = b"[%b]" % bytes(memoryview(span.body)[start:end])
    try:
        array = json.parse(text, words=how.nonfinite)
    except json.Broken as broken:
        place = None if broken.place is None else min(start + broken.place - 1, end)
        raise unreadable(span.body, broken.reason, place) from None
    shape = shape_of(array, how.where) if inner is None else (len(array), *inner)
    if how.level + len(shape) > MAX_RANK + 1:
        raise _invalid(how.where, "rank", f"at most {MAX_RANK} dimensions", "more")
    numbers.add(_values(array, shape, how, text, first))
    return shape


def _long_element(span: Span, start: int, end: int, how: How) -> Span:
    """Return an element of a long array that is one itself.

    Raises:
        Invalid: it is something else.
        Unreadable: it is not JSON.
    """
    if span.body[start] in b'"{':
        shown = bytes(memoryview(span.body)[start : start + MOST_SHOWN - 3]).decode(errors="replace")
        raise _invalid(how.path, "type", "a number", f"{shown}...")
    if span.body[start] != ord("["):
        raise unreadable(span.body, "a number of too many digits", start)
    first = next(iter(scan(span.body, start, end)), None)
    if first is None or first.end != end:
        raise unreadable(span.body, "unexpected character", end if first is None else first.end)
    return first


def _values(array: Any, shape: Shape, how: How, text: bytes | None = None, first: int = 0) -> Values:
    """Return all numbers of nested arrays in a row.

    ``text`` is their JSON, where it is at hand, ``first`` the place of the first element.

    Raises:
        Invalid: they have another shape, or hold something else than numbers.
    """
    if text is not None and b'"' in text:
        text = None
    if _has_shape(array, shape, text):
        values = _numbers(array, shape, how.whole, flat=text is not None)
        if values is None and how.nonfinite:
            values = _nonfinite_numbers(array, shape)
        if values is not None:
            return values
    _refuse_misfits(array, shape, how, first)
    raise _invalid(how.where, "ragged", "rectangular arrays of numbers", "arrays of different lengths")


def _has_shape(array: Any, shape: Shape, text: bytes | None) -> bool:
    """Tell whether nested arrays have a shape; by their ``text``, which has no strings, also whether that is all."""
    if text is None:
        return is_rectangular(array, shape)
    brackets = int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("[")))
    if brackets != sum(prod(shape[:level]) for level in range(len(shape))):
        return False
    if brackets * DENSE > len(text):
        return text.translate(None, delete=b"0123456789.+-Eetrufalsn \t\r\n") == _brackets(shape)
    return is_rectangular(array, shape)


def _brackets(shape: Shape) -> bytes:
    """Return the JSON of nested arrays without what is in them.

    >>> _brackets((2, 3))
    b'[[,,],[,,]]'
    """
    found = b""
    for length in reversed(shape):
        found = b"[%b]" % b",".join([found] * length)
    return found


def _level(array: Any, depth: int) -> Iterable[Any]:
    """Return what lies ``depth`` levels down in nested arrays, one after the other, at C speed."""
    items: Iterable[Any] = (array,)
    for _ in range(depth):
        items = chain.from_iterable(items)
    return items


def _numbers(array: Any, shape: Shape, whole: bool, *, flat: bool) -> Values | None:
    """Return all numbers of nested arrays in a row; None where there is something else, or the count is off."""
    if not prod(shape):
        return np.zeros(0)
    for letter, dtype in (("i", np.int64), ("d", np.float64)) if whole else (("d", np.float64),):
        try:
            values = np.frombuffer(array.as_buffer(of_type=letter), dtype)
        except (TypeError, ValueError):
            continue
        if values.size != prod(shape) or not (flat or holds_no_arrays(array, len(shape))):
            return None
        # an integer among numbers spelled 1.0 has lost its last digits here
        if not (whole and dtype is np.float64 and bool((np.abs(values) >= EXACT).any())):
            return values
    return _mixed_numbers(array, shape)


def _mixed_numbers(array: Any, shape: Shape) -> Values | None:
    """Return the numbers of arrays that hold true and false, or integers beside fractions, with all digits."""
    elements = [*_elements(array, shape)]
    found = set(map(type, elements))
    if not found <= NUMBERS:
        return None
    if found == {bool}:
        values: Values = np.fromiter(elements, np.bool_)
    else:
        try:
            values = np.fromiter(map(_exact, elements), np.int64)
        except (ValueError, OverflowError):
            values = np.fromiter(elements, np.float64)
    return values if values.size == prod(shape) else None


def _nonfinite_numbers(array: Any, shape: Shape) -> Values | None:
    """Return numbers among which some are not finite; None where there is something else, or the count is off."""
    elements = [*_elements(array, shape)]
    try:
        numbers = [*map(NONFINITE.get, elements, elements)]
    except TypeError:
        return None
    # numpy reads other strings as numbers, too
    if len(numbers) != prod(shape) or not set(map(type, numbers)) <= NUMBERS:
        return None
    return np.array(numbers, np.float64)


def _elements(array: Any, shape: Shape) -> Iterable[Any]:
    """Return what stands where numbers belong, one after the other, at C speed."""
    return _level(array.as_list(), len(shape))


def _exact(number: float) -> int:
    """Return the integer that a number is.

    Raises:
        ValueError: it has a fraction, or may be one of several integers just below 64 bits.
    """
    if number != int(number) or (number == LEAST and type(number) is float):
        raise ValueError
    return int(number)


def _refuse_misfits(array: Any, shape: Shape, how: How, first: int) -> None:
    """Find the first thing in nested arrays that does not fit the shape, level by level.

    Raises:
        Invalid: there is one.
    """
    for depth in range(1, len(shape)):
        for place, row in enumerate(_level(array, depth)):
            if not json.is_array(row) or len(row) != shape[depth]:
                got = f"length {len(row)}" if json.is_array(row) else show(row)
                path = how.to(_index(place, shape[:depth]), first)
                raise _invalid(path, "ragged", f"an array of length {shape[depth]}", got)
    for place, item in enumerate(_level(array, len(shape))):
        if type(item) not in NUMBERS and item not in how.words:
            path = how.to(_index(place, shape), first)
            raise _invalid(path, "ragged" if json.is_array(item) else "type", "a number", show(item))


def _index(place: int, shape: Shape) -> Shape:
    """Return the index of the element at a place in row-major order."""
    return tuple(int(i) for i in np.unravel_index(place, shape))


def _invalid(where: Path, code: str, expected: str, got: str) -> Invalid:
    """Return the problem of one fault."""
    return Invalid(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))
