"""The numbers of one parsed JSON array, as a flat sequence.

simdjson's flat buffer loses the nesting. So the shape is taken from the first element of each level, all other lengths
are compared with it, and values that are not numbers are found. Only arrays with a fault are searched element by
element.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from math import inf, nan, prod
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from service.engine.call import Sent
from service.problems import Fault, Invalid, pointer
from service.wire.json import ARRAY, are_arrays, is_array, show

MAX_RANK = 32
NUMBERS = {bool, int, float}
NONFINITE: dict[Any, float] = {None: nan, "NaN": nan, "Infinity": inf, "-Infinity": -inf}
"""Substitutes for numbers that JSON does not have, on doors that accept them."""
EXACT = 2.0**53
"""Floats from here on may stand for integers that float64 does not have."""
LEAST = -(2.0**63)
"""The float that integers just below the 64-bit range are read as."""
DENSE = 32
"""Up to this many bytes, comparing an array's brackets is faster than asking for its length."""

Path = tuple[str | int, ...]
Shape = tuple[int, ...]
Values = NDArray[Any]
from_numpy: Callable[[Values], torch.Tensor] = cast(Any, torch).from_numpy


class How(NamedTuple):
    """How numbers are read: exactly if they are large and ``whole``, and with words for non-finite ones.

    ``where`` is the tensor's path in the request, ``indices`` that of an array in the tensor.
    """

    where: Path = ()
    whole: bool = False
    nonfinite: bool = False
    indices: Shape = ()

    @property
    def level(self) -> int:
        """The number of enclosing arrays."""
        return len(self.indices)

    @property
    def path(self) -> Path:
        """The path of the array in the request."""
        return (*self.where, *self.indices)

    @property
    def words(self) -> Collection[Any]:
        """Accepted substitutes for numbers."""
        return NONFINITE if self.nonfinite else ()

    def at(self, place: int) -> "How":
        """Return how to read an element."""
        return self._replace(indices=(*self.indices, place))

    def to(self, index: Shape, first: int) -> Path:
        """Return the path to an element by its index, counted from ``first``."""
        return (*self.path, index[0] + first, *index[1:])


def read_numbers(array: Any, how: How) -> Sent:
    """Read nested arrays as a tensor.

    Raises:
        Invalid: they are ragged, or hold other values than numbers.
    """
    shape = shape_of(array, how.where)
    return sent(values_of(array, shape, how), shape)


def sent(values: Values, shape: Shape) -> Sent:
    """Return flat numbers as a tensor of this shape."""
    tensor = from_numpy(values.reshape(shape)) if values.size else torch.zeros(shape)
    return Sent(tensor, addressable=True, any_rank=shape == (0,))


def values_of(array: Any, shape: Shape, how: How, text: bytes | None = None, first: int = 0) -> Values:
    """Return all numbers of nested arrays as a flat sequence.

    ``text`` is their JSON, if available, ``first`` the index of the first element.

    Raises:
        Invalid: they have another shape, or hold other values than numbers.
    """
    elements = None
    if text is not None and b'"' not in text:
        fits = _has_shape(array, shape, text)
    else:
        elements = elements_of(array, shape)
        fits = elements is not None
    if fits and (values := _numbers(array, shape, how, elements)) is not None:
        return values
    _refuse_misfits(array, shape, how, first)
    raise invalid(how.where, "ragged", "rectangular arrays of numbers", "arrays of different lengths")


def shape_of(array: Any, where: Path = ()) -> Shape:
    """Return the lengths of the arrays down to the first number.

    Raises:
        Invalid: they are nested deeper than any tensor has dimensions.
    """
    shape: list[int] = []
    while type(array) is ARRAY:
        if len(shape) == MAX_RANK:
            raise invalid(where, "rank", f"at most {MAX_RANK} dimensions", "more")
        shape.append(len(array))
        if not shape[-1]:
            break
        array = array[0]
    return tuple(shape)


def plain_shape(array: Any) -> Shape | None:
    """Return the shape of nested arrays that are rectangular, hold only numbers and are not empty; None of others."""
    try:
        shape = shape_of(array)
    except Invalid:
        return None
    elements = None if 0 in shape else elements_of(array, shape)
    return shape if elements and are_numbers(elements) else None


def elements_of(array: Any, shape: Shape) -> list[Any] | None:
    """Return the innermost elements as a flat list; None unless the arrays around them have the shape."""
    level = array.as_list()
    for length in shape[1:]:
        if {*map(type, level)} != {list} or {*map(len, level)} != {length}:
            return None
        level = [*chain.from_iterable(level)]
    return level


def are_numbers(elements: Iterable[Any]) -> bool:
    """Return whether elements are numbers, at C speed: only numbers have a sum."""
    try:
        sum(elements)
    except TypeError:
        return False
    return True


def _has_shape(array: Any, shape: Shape, text: bytes) -> bool:
    """Return whether nested arrays have a shape, from their text, which must hold no strings."""
    brackets = int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("[")))
    if brackets != sum(prod(shape[:level]) for level in range(len(shape))):
        return False
    if brackets * DENSE > len(text):
        return text.translate(None, delete=b"0123456789.+-Eetrufalsn \t\r\n") == _brackets(shape)
    return _is_rectangular(array, shape)


def _brackets(shape: Shape) -> bytes:
    """Return the JSON of nested arrays without their elements.

    >>> _brackets((2, 3))
    b'[[,,],[,,]]'
    """
    found = b""
    for length in reversed(shape):
        found = b"[%b]" % b",".join([found] * length)
    return found


def _is_rectangular(array: Any, shape: Shape) -> bool:
    """Return whether every array above the numbers has the length that the shape gives."""
    try:
        for depth in range(1, len(shape)):
            if not set(map(len, _level(array, depth))) <= {shape[depth]}:
                return False
    except TypeError:
        return False
    # empty strings and objects have the length of an empty array, and no elements to give them away
    return 0 not in shape or are_arrays(_level(array, len(shape) - 1))


def _level(array: Any, depth: int) -> Iterable[Any]:
    """Return the values ``depth`` levels down in nested arrays, one after another, at C speed."""
    items: Iterable[Any] = (array,)
    for _ in range(depth):
        items = chain.from_iterable(items)
    return items


def _numbers(array: Any, shape: Shape, how: How, elements: list[Any] | None) -> Values | None:
    """Return all numbers of nested arrays of a shape; None if there are other values.

    ``elements`` are the innermost elements, None if they are not available.
    """
    if not prod(shape):
        return np.zeros(0)
    for letter, dtype in (("i", np.int64), ("d", np.float64)) if how.whole else (("d", np.float64),):
        try:
            values = np.frombuffer(array.as_buffer(of_type=letter), dtype)
        except (TypeError, ValueError):
            continue
        if values.size != prod(shape) or not (elements is None or are_numbers(elements)):
            return None
        # an integer among numbers written as 1.0 has lost its last digits here
        if not (how.whole and dtype is np.float64 and bool((np.abs(values) >= EXACT).any())):
            return values
    if elements is None:
        elements = elements_of(array, shape)
    if elements is None:
        return None
    values = _mixed_numbers(elements)
    return _nonfinite_numbers(elements) if values is None and how.nonfinite else values


def _mixed_numbers(elements: list[Any]) -> Values | None:
    """Return numbers mixed with booleans, or integers mixed with fractions, exactly; None if there are other values."""
    found = set(map(type, elements))
    if not found <= NUMBERS:
        return None
    if found == {bool}:
        return np.array(elements, np.bool_)
    try:
        return np.fromiter(map(_exact, elements), np.int64)
    except (ValueError, OverflowError):
        return np.array(elements, np.float64)


def _nonfinite_numbers(elements: list[Any]) -> Values | None:
    """Return numbers with non-finite ones among them; None if there are other values."""
    try:
        numbers = [*map(NONFINITE.get, elements, elements)]
    except TypeError:
        return None
    # numpy would also parse other strings as numbers
    return np.array(numbers, np.float64) if set(map(type, numbers)) <= NUMBERS else None


def _exact(number: float) -> int:
    """Return a number as an integer.

    Raises:
        ValueError: it has a fraction, or may stand for one of several integers just below 64 bits.
    """
    if number != int(number) or (number == LEAST and type(number) is float):
        raise ValueError
    return int(number)


def _refuse_misfits(array: Any, shape: Shape, how: How, first: int) -> None:
    """Find the first value in nested arrays that does not fit the shape, level by level.

    Raises:
        Invalid: always, unless all fit.
    """
    for depth in range(1, len(shape)):
        for place, row in enumerate(_level(array, depth)):
            if not is_array(row) or len(row) != shape[depth]:
                got = f"length {len(row)}" if is_array(row) else show(row)
                path = how.to(_index(place, shape[:depth]), first)
                raise invalid(path, "ragged", f"an array of length {shape[depth]}", got)
    for place, item in enumerate(_level(array, len(shape))):
        if type(item) not in NUMBERS and item not in how.words:
            path = how.to(_index(place, shape), first)
            raise invalid(path, "ragged" if is_array(item) else "type", "a number", show(item))


def _index(place: int, shape: Shape) -> Shape:
    """Return the index of an element from its position in row-major order."""
    return tuple(int(i) for i in np.unravel_index(place, shape))


def invalid(where: Path, code: str, expected: str, got: str) -> Invalid:
    """Return the problem of one fault."""
    return Invalid(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))
