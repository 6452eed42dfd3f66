"""Tensors on the wire: JSON arrays or packed bytes in, the same out, never one element at a time.

A JSON array becomes a tensor through simdjson's flat buffer. That forgets the nesting, so the shape is read
off the first element of each level, every other length is compared with it, and `refuse_hidden` finds arrays
that stand where a number belongs. Only what is wrong somewhere is looked through element by element.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from math import inf, nan, prod
from typing import Any

import numpy as np
import pybase64
import torch
from torch import Tensor

from service.engine.call import Sent
from service.problems import Fault, Invalid, pointer
from service.wire.json import MOST_COUNTED, are_arrays, is_array, is_object, length, members, show

DTYPES: dict[str, torch.dtype] = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
PACKED = ("dtype", "shape", "data")
WANTED = "a number, rectangular arrays of numbers, or {dtype, shape, data}"
MAX_RANK = 32
MAX_BESIDE_ZERO = 1 << 20
"""Bound of the product of an empty tensor's other sizes, which no length of data bounds: [n, 0] is n times []."""
NUMBERS = {bool, int, float}
NONFINITE: dict[str | None, float] = {None: nan, "NaN": nan, "Infinity": inf, "-Infinity": -inf}
"""What stands for a number that JSON does not have, where a door reads such."""
EXACT = 2.0**53
"""Floats from here on may stand for an integer that float64 does not have."""
LEAST = -(2.0**63)
"""The float that integers just below 64 bits are read as."""

Path = tuple[str | int, ...]
Shape = tuple[int, ...]


def read(value: Any, *where: str | int, whole: bool = False, nonfinite: bool = False) -> Sent:
    """Read any of the wire forms of a tensor.

    ``whole`` keeps all digits of large integers, ``nonfinite`` reads null as NaN and the words of `NONFINITE`.

    Raises:
        Invalid: it is none of them, ragged, or not as long as it says.
    """
    if is_object(value):
        return _read_packed(value, where)
    if is_array(value):
        return _read_array(value, where, whole, nonfinite)
    if isinstance(value, (bool, int, float)):
        exact = whole and type(value) is int and -(2**63) <= value < 2**63
        dtype = torch.bool if isinstance(value, bool) else torch.int64 if exact else torch.float64
        return Sent(torch.tensor(value, dtype=dtype), addressable=True)
    raise _invalid(where, "type", WANTED, show(value))


def brackets(value: Any, sent: Sent) -> int:
    """Return how many JSON arrays a tensor on the wire is made of: a packed one has its shape."""
    if not is_array(value):
        return int(is_object(value))
    shape = sent.tensor.shape
    return sum(prod(shape[:level]) for level in range(len(shape)))


def refuse_hidden(value: Any, sent: Sent, *where: str | int) -> None:
    """Look at every element of a JSON tensor for arrays where a number belongs.

    Raises:
        Invalid: there is one, as in ``[[1, 2], [3, [4]]]``, whose count of numbers fits.
    """
    shape = tuple(sent.tensor.shape)
    if is_array(value) and not set(map(type, _level(value, len(shape)))) <= NUMBERS:
        _refuse_misfits(value, shape, where, NONFINITE)


def write(tensor: Tensor, encoding: str) -> Any:
    """Return a tensor as what orjson writes: a flat description with base64, or an array."""
    if encoding == "base64":
        return {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "data": pybase64.b64encode_as_string(raw_bytes(tensor)),
        }
    if tensor.dim() == 0:
        return tensor.item()
    # numpy has no bfloat16, and float32 writes every half number exactly
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return (tensor.float() if half else tensor).contiguous().numpy()


def write_each(stack: Tensor, encoding: str) -> Sequence[Any]:
    """Return each of several stacked tensors as `write` does."""
    if encoding == "base64":
        return [write(tensor, encoding) for tensor in stack.unbind()]
    written = write(stack, encoding)
    return written.tolist() if stack.dim() == 1 else [*written]


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return a tensor's row-major bytes without a copy where it is contiguous."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _read_array(array: Any, where: Path, whole: bool, nonfinite: bool) -> Sent:
    """Read nested JSON arrays."""
    shape = shape_of(array, where)
    rectangular = is_rectangular(array, shape)
    values = _numbers(array, shape, whole) if rectangular else None
    if values is None and rectangular and nonfinite:
        values = _nonfinite_numbers(array, shape)
    if values is None:
        _refuse_misfits(array, shape, where, NONFINITE if nonfinite else ())
        raise _invalid(where, "ragged", "rectangular arrays of numbers", "arrays of different lengths")
    return Sent(values.reshape(shape), addressable=True, any_rank=shape == (0,))


def shape_of(array: Any, where: Path = ()) -> Shape:
    """Return the lengths of the arrays on the way to the first number.

    Raises:
        Invalid: there are more of them than any tensor has dimensions.
    """
    shape: list[int] = []
    while is_array(array):
        if len(shape) == MAX_RANK:
            raise _invalid(where, "rank", f"at most {MAX_RANK} dimensions", "more")
        counted = len(array)
        shape.append(counted if counted < MOST_COUNTED else length(array))
        if not counted:
            break
        array = array[0]
    return tuple(shape)


def _level(array: Any, depth: int) -> Iterable[Any]:
    """Return what lies ``depth`` levels down in nested arrays, one after the other, at C speed."""
    items: Iterable[Any] = (array,)
    for _ in range(depth):
        items = chain.from_iterable(items)
    return items


def is_rectangular(array: Any, shape: Shape) -> bool:
    """Tell whether every array above the numbers is as long as the shape says."""
    try:
        for depth in range(1, len(shape)):
            if set(map(len, _level(array, depth))) != {min(shape[depth], MOST_COUNTED)}:
                return False
    except TypeError:
        return False
    # an empty string or object is as long as an empty array, and has no elements that would give it away
    return 0 not in shape or are_arrays(_level(array, len(shape) - 1))


def _numbers(array: Any, shape: Shape, whole: bool) -> Tensor | None:
    """Return all numbers of nested arrays in a row; None where there is something else, or the count is off."""
    if not prod(shape):
        return torch.zeros(shape)
    for letter, dtype in (("i", torch.int64), ("d", torch.float64)) if whole else (("d", torch.float64),):
        try:
            values = torch.frombuffer(array.as_buffer(of_type=letter), dtype=dtype)
        except (TypeError, ValueError):
            continue
        if values.numel() != prod(shape):
            return None
        # an integer among numbers spelled 1.0 has lost its last digits here
        if not (whole and values.is_floating_point() and bool((values.abs() >= EXACT).any())):
            return values
    return _mixed_numbers(array, shape)


def _mixed_numbers(array: Any, shape: Shape) -> Tensor | None:
    """Return the numbers of arrays that hold true and false, or integers beside fractions, with all digits."""
    found = set(map(type, _level(array, len(shape))))
    if not found <= NUMBERS:
        return None
    elements = _level(array, len(shape))
    if found == {bool}:
        values = np.fromiter(elements, np.bool_)
    else:
        try:
            values = np.fromiter(map(_exact, elements), np.int64)
        except (ValueError, OverflowError):
            values = np.fromiter(_level(array, len(shape)), np.float64)
    return torch.as_tensor(values) if values.size == prod(shape) else None


def _nonfinite_numbers(array: Any, shape: Shape) -> Tensor | None:
    """Return numbers among which some are not finite; None where there is something else, or the count is off."""
    try:
        values = np.fromiter(map(_with_nonfinite, _level(array, len(shape))), np.float64)
    except (KeyError, TypeError):
        return None
    return torch.as_tensor(values) if values.size == prod(shape) else None


def _with_nonfinite(element: Any) -> float:
    """Return the number that an element of an array is or stands for.

    Raises:
        KeyError: it is a word that stands for none.
        TypeError: it is an array or an object.
    """
    return element if type(element) in NUMBERS else NONFINITE[element]


def _exact(number: float) -> int:
    """Return the integer that a number is.

    Raises:
        ValueError: it has a fraction, or may be one of several integers just below 64 bits.
    """
    if number != int(number) or (number == LEAST and type(number) is float):
        raise ValueError
    return int(number)


def _refuse_misfits(array: Any, shape: Shape, where: Path, words: Collection[Any] = ()) -> None:
    """Find the first thing in nested arrays that does not fit the shape, level by level.

    ``words`` are what stands for numbers.

    Raises:
        Invalid: there is one.
    """
    for depth in range(1, len(shape)):
        counted = min(shape[depth], MOST_COUNTED)
        for place, row in enumerate(_level(array, depth)):
            if not is_array(row) or len(row) != counted:
                path = (*where, *_index(place, shape[:depth]))
                got = f"length {length(row)}" if is_array(row) else show(row)
                raise _invalid(path, "ragged", f"an array of length {shape[depth]}", got)
    for place, item in enumerate(_level(array, len(shape))):
        if type(item) not in NUMBERS and item not in words:
            path = (*where, *_index(place, shape))
            raise _invalid(path, "ragged" if is_array(item) else "type", "a number", show(item))


def _index(place: int, shape: Shape) -> tuple[int, ...]:
    """Return the index of the element at a place in row-major order."""
    return tuple(int(i) for i in np.unravel_index(place, shape))


def _read_packed(value: Any, where: Path) -> Sent:
    """Read ``{dtype, shape, data}``; lengths are compared before anything is allocated."""
    fields, faults = members(value, PACKED, *where)
    if len(fields) < len(PACKED):
        raise _invalid(where, "type", WANTED, show(value))
    if faults:
        raise Invalid(*faults)
    name, data = fields["dtype"], fields["data"]
    if not isinstance(name, str) or name not in DTYPES:
        raise _invalid((*where, "dtype"), "dtype", f"one of {', '.join(DTYPES)}", show(name))
    dtype = DTYPES[name]
    shape = read_shape(fields["shape"], (*where, "shape"))
    if not isinstance(data, str):
        raise _invalid((*where, "data"), "type", "a base64 string", show(data))
    size = prod(shape) * dtype.itemsize
    if len(data) != (characters := 4 * ((size + 2) // 3)):
        expected = f"{characters} characters, the base64 of {size} bytes ({name} {shape})"
        raise _invalid((*where, "data"), "length", expected, f"{len(data)} characters")
    return Sent(from_bytes(_unpack(data, size, (*where, "data")), dtype, shape))


def read_shape(value: Any, where: Path) -> list[int]:
    """Read a tensor's shape.

    Raises:
        Invalid: it is no list of integers of at least 0, or has more elements than can be meant.
    """
    if not is_array(value):
        raise _invalid(where, "shape", "a list of integers of at least 0", show(value))
    if length(value) > MAX_RANK:
        raise _invalid(where, "rank", f"at most {MAX_RANK} dimensions", f"{length(value)}")
    shape = list(value)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise _invalid(where, "shape", "a list of integers of at least 0", show(value))
    if 0 in shape and prod(size for size in shape if size) > MAX_BESIDE_ZERO:
        expected = f"at most {MAX_BESIDE_ZERO} as the product of the sizes beside 0"
        raise _invalid(where, "shape", expected, show(value))
    return shape


def _unpack(data: str, size: int, where: Path) -> bytearray:
    """Undo base64."""
    try:
        raw = pybase64.b64decode_as_bytearray(data, validate=True)
    except ValueError as error:
        expected, got = "base64 of the standard alphabet, with its padding", f"something else: {error}"
        raise _invalid(where, "base64", expected, got) from None
    if len(raw) != size:
        raise _invalid(where, "length", f"the base64 of {size} bytes", f"that of {len(raw)}")
    return raw


def from_bytes(raw: bytearray, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """Return row-major, little-endian bytes as a tensor, which has their memory. A bool is true where one is not 0."""
    if not prod(shape):
        return torch.zeros(shape, dtype=dtype)
    tensor = torch.frombuffer(raw, dtype=torch.uint8 if dtype == torch.bool else dtype)
    return (tensor != 0 if dtype == torch.bool else tensor).reshape(shape)


def _invalid(where: Path, code: str, expected: str, got: str) -> Invalid:
    """Return the problem of one fault."""
    return Invalid(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))
