"""Tensors on the wire: JSON arrays or packed bytes in, the same out, never one element at a time.

A JSON array becomes a tensor through simdjson's flat buffer. That forgets the nesting, so the shape is read
off the first element of each level, each row's length is compared with it, and `refuse_hidden` finds arrays
that stand where a number belongs.
"""

import binascii
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.engine.call import Sent
from service.problems import Fault, Invalid, pointer
from service.wire.json import is_array, is_object, members, plain, show

DTYPES = {
    name: getattr(torch, name)
    for name in (
        ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
    )
}
MAX_RANK = 32
WANTED = "a number, rectangular arrays of numbers, or {dtype, shape, data}"

Path = tuple[str | int, ...]


def read(value: Any, *where: str | int, whole: bool = False) -> Sent:
    """Read any of the wire forms of a tensor; ``whole`` keeps all digits of large integers.

    Raises:
        Invalid: it is none of them, ragged, or not as long as it says.
    """
    if is_object(value):
        return _read_packed(value, where)
    if is_array(value):
        return _read_array(value, where, whole)
    if isinstance(value, (bool, int, float)):
        exact = whole and type(value) is int and abs(value) < 2**63
        dtype = torch.bool if isinstance(value, bool) else torch.int64 if exact else torch.float64
        return Sent(torch.tensor(value, dtype=dtype), addressable=True)
    raise _invalid(where, "type", WANTED, show(value))


def brackets(value: Any, sent: Sent) -> int:
    """Return how many arrays a JSON tensor of this shape is made of."""
    if not is_array(value):
        return 0
    shape = sent.tensor.shape
    return sum(prod(shape[:level]) for level in range(len(shape)))


def refuse_hidden(value: Any, sent: Sent, *where: str | int) -> None:
    """Look at every element of a JSON tensor for arrays where a number belongs.

    Raises:
        Invalid: there is one, as in ``[[1, 2], [3, [4]]]``, whose count of numbers fits.
    """
    if is_array(value):
        _refuse_arrays(value, sent.tensor.dim(), where)


def write(tensor: Tensor, encoding: str) -> Any:
    """Return a tensor as what orjson writes: a flat description with base64, or an array."""
    if encoding == "base64":
        return {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "data": binascii.b2a_base64(raw_bytes(tensor), newline=False).decode("ascii"),
        }
    if tensor.dim() == 0:
        return tensor.item()
    # numpy has no bfloat16, and float32 writes every half number exactly
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return (tensor.float() if half else tensor).contiguous().numpy()


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return a tensor's row-major bytes without a copy where it is contiguous."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _read_array(array: Any, where: Path, whole: bool) -> Sent:
    """Read nested JSON arrays."""
    shape = _shape(array, where)
    _refuse_ragged(array, shape, where)
    if prod(shape) == 0:
        return Sent(torch.zeros(shape), addressable=True, any_rank=len(shape) == 1)
    values = _flat(array, where, whole)
    if values.numel() != prod(shape):
        _refuse_arrays(array, len(shape), where)
        raise _invalid(where, "ragged", "rectangular arrays of numbers", "arrays of different lengths")
    return Sent(values.reshape(shape), addressable=True)


def _shape(array: Any, where: Path) -> tuple[int, ...]:
    """Return the lengths of the arrays on the way to the first number."""
    shape: list[int] = []
    while is_array(array):
        if len(shape) == MAX_RANK:
            raise _invalid(where, "rank", f"at most {MAX_RANK} dimensions", "more")
        shape.append(len(array))
        if not shape[-1]:
            break
        array = array[0]
    return tuple(shape)


def _refuse_ragged(array: Any, shape: tuple[int, ...], where: Path) -> None:
    """Compare the length of every array above the numbers with the shape."""
    if len(shape) < 2:
        return
    if len(shape) == 2:
        # one pass at C speed; only what it finds wrong is looked for row by row
        try:
            if set(map(len, array)) <= {shape[1]}:
                return
        except TypeError:
            pass
    for place, row in enumerate(array):
        if not is_array(row):
            raise _invalid((*where, place), "ragged", f"an array of length {shape[1]}", show(row))
        if len(row) != shape[1]:
            raise _invalid((*where, place), "ragged", f"an array of length {shape[1]}", f"length {len(row)}")
        _refuse_ragged(row, shape[1:], (*where, place))


def _refuse_arrays(array: Any, depth: int, where: Path) -> None:
    """Find an array deeper than ``depth`` levels."""
    for place, item in enumerate(array):
        if depth > 1:
            _refuse_arrays(item, depth - 1, (*where, place))
        elif is_array(item):
            raise _invalid((*where, place), "ragged", "a number", show(item))


def _flat(array: Any, where: Path, whole: bool) -> Tensor:
    """Return all numbers of nested arrays in a row."""
    for letter, dtype in (("i", torch.int64), ("d", torch.float64)) if whole else (("d", torch.float64),):
        try:
            return torch.frombuffer(array.as_buffer(of_type=letter), dtype=dtype)
        except (TypeError, ValueError, AttributeError):
            continue
    return _flat_plain(plain(array), where)


def _flat_plain(rows: list[Any], where: Path) -> Tensor:
    """Return the numbers, or the trues and falses, of arrays that simdjson has no buffer for."""
    try:
        values = np.array(rows)
    except ValueError:
        values = np.array(None)
    if values.dtype.kind not in "bif":
        _refuse_others(rows, where)
        values = np.array(rows, dtype=np.float64)
    return torch.as_tensor(values).reshape(-1)


def _refuse_others(rows: list[Any], where: Path) -> None:
    """Find the first element that is neither an array nor a number."""
    for place, item in enumerate(rows):
        if isinstance(item, list):
            _refuse_others(item, (*where, place))  # pyright: ignore[reportUnknownArgumentType]
        elif not isinstance(item, (bool, int, float)):
            raise _invalid((*where, place), "type", "a number", show(item))


def _read_packed(value: Any, where: Path) -> Sent:
    """Read ``{dtype, shape, data}``; lengths are compared before anything is allocated."""
    fields = {name: plain(field) for name, field in members(value, *map(str, where))}
    if fields.keys() != {"dtype", "shape", "data"}:
        raise _invalid(where, "type", WANTED, f"an object with {', '.join(sorted(fields)) or 'nothing'}")
    name, shape, data = fields["dtype"], fields["shape"], fields["data"]
    if not isinstance(name, str) or name not in DTYPES:
        raise _invalid((*where, "dtype"), "dtype", f"one of {', '.join(DTYPES)}", show(name))
    if not is_array(shape) or not all(type(size) is int and size >= 0 for size in shape):
        raise _invalid((*where, "shape"), "shape", "a list of integers of at least 0", show(shape))
    if len(shape) > MAX_RANK:
        raise _invalid((*where, "shape"), "rank", f"at most {MAX_RANK} dimensions", f"{len(shape)}")
    if not isinstance(data, str):
        raise _invalid((*where, "data"), "type", "a base64 string", show(data))
    dtype: torch.dtype = DTYPES[name]
    size = prod(shape) * dtype.itemsize
    if len(data) != 4 * ((size + 2) // 3):
        got = f"{len(data)} characters"
        raise _invalid((*where, "data"), "length", f"the base64 of {size} bytes ({name} {shape})", got)
    return Sent(from_bytes(_unpack(data, size, where), dtype, shape))


def _unpack(data: str, size: int, where: Path) -> bytes:
    """Undo base64."""
    try:
        raw = binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid((*where, "data"), "base64", "base64", f"{error}") from None
    if len(raw) != size:
        raise _invalid((*where, "data"), "length", f"{size} bytes", f"{len(raw)}")
    return raw


def from_bytes(raw: bytes, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """Return row-major, little-endian bytes as a tensor. A bool is true where its byte is not 0."""
    if not prod(shape):
        return torch.zeros(shape, dtype=dtype)
    # a copy, since a tensor may not share memory that is read-only or out of alignment
    tensor = torch.frombuffer(bytearray(raw), dtype=torch.uint8 if dtype == torch.bool else dtype)
    return (tensor != 0 if dtype == torch.bool else tensor).reshape(shape)


def _invalid(where: Path, code: str, expected: str, got: str) -> Invalid:
    """Return the problem of one fault."""
    return Invalid(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))
