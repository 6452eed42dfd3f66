"""Tensors on the wire: a number, JSON arrays, or packed bytes, never one element at a time."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import orjson
import pybase64
import torch
from torch import Tensor

from service.engine.call import Sent
from service.problems import Invalid
from service.wire import numbers
from service.wire.arrays import read_long
from service.wire.document import Document
from service.wire.json import ARRAY, is_array, is_object, show
from service.wire.numbers import MAX_RANK, How, Path, invalid
from service.wire.text import Span

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
MAX_BESIDE_ZERO = 1 << 20
"""Largest product of an empty tensor's other sizes, which no data bounds: [n, 0] is n times []."""
PIECE = 1 << 20
"""Characters of base64 decoded at once, in less than a millisecond."""
ESCAPE = len("\\u0000")
"""Length of the longest escape."""


def read_tensor(
    document: Document, value: Any, *where: str | int, whole: bool = False, nonfinite: bool = False
) -> Sent:
    """Read any of the wire forms of a tensor.

    ``whole`` keeps all digits of large integers, ``nonfinite`` allows NaN and infinity as words, and null for NaN.

    Raises:
        Invalid: it is none of them, is ragged, or has the wrong length.
        Unreadable: a part of it that is parsed only here is not JSON.
    """
    if type(value) is ARRAY:
        return numbers.read_numbers(value, How(where, whole, nonfinite))
    if is_object(value):
        return _read_packed(document, value, where)
    if is_array(value):
        return read_long(value, How(where, whole, nonfinite))
    if isinstance(value, (bool, int, float)):
        exact = whole and type(value) is int and -(2**63) <= value < 2**63
        dtype = torch.bool if isinstance(value, bool) else torch.int64 if exact else torch.float64
        return Sent(torch.tensor(value, dtype=dtype), addressable=True)
    raise invalid(where, "type", WANTED, show(value))


def _read_packed(document: Document, value: Any, where: Path) -> Sent:
    """Read ``{dtype, shape, data}``; lengths are compared before anything is allocated."""
    fields, faults = document.members(value, PACKED, *where)
    if len(fields) < len(PACKED):
        raise invalid(where, "type", WANTED, show(value))
    if faults:
        raise Invalid(*faults)
    name, data = fields["dtype"], fields["data"]
    if not isinstance(name, str) or name not in DTYPES:
        raise invalid((*where, "dtype"), "dtype", f"one of {', '.join(DTYPES)}", show(name))
    dtype = DTYPES[name]
    shape = read_shape(fields["shape"], (*where, "shape"))
    if not (isinstance(data, str) or (isinstance(data, Span) and not data.is_array)):
        raise invalid((*where, "data"), "type", "a base64 string", show(data))
    size = prod(shape) * dtype.itemsize
    characters = 4 * ((size + 2) // 3)
    if (length := _length(data, characters)) != characters:
        _refuse_line_breaks(data, (*where, "data"))
        expected = f"{characters} characters, the base64 of {size} bytes ({name} {shape})"
        raise invalid((*where, "data"), "length", expected, f"{length} characters")
    return Sent(from_bytes(_unpack(data, size, (*where, "data")), dtype, shape))


def read_shape(value: Any, where: Path) -> list[int]:
    """Read a tensor's shape.

    Raises:
        Invalid: it is not a list of integers of at least 0, or has implausibly many elements.
    """
    if not is_array(value):
        raise invalid(where, "shape", "a list of integers of at least 0", show(value))
    if isinstance(value, Span) or len(value) > MAX_RANK:
        got = "more" if isinstance(value, Span) else str(len(value))
        raise invalid(where, "rank", f"at most {MAX_RANK} dimensions", got)
    shape = list(value)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise invalid(where, "shape", "a list of integers of at least 0", show(value))
    if 0 in shape and prod(size for size in shape if size) > MAX_BESIDE_ZERO:
        expected = f"at most {MAX_BESIDE_ZERO} as the product of the sizes beside 0"
        raise invalid(where, "shape", expected, show(value))
    return shape


def from_bytes(raw: bytearray | memoryview, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """Return row-major, little-endian bytes as a tensor that shares their memory. A bool is true if its byte is not 0."""
    if not prod(shape):
        return torch.zeros(shape, dtype=dtype)
    tensor = torch.frombuffer(raw, dtype=torch.uint8 if dtype == torch.bool else dtype)
    return (tensor != 0 if dtype == torch.bool else tensor).reshape(shape)


def _length(data: str | Span, expected: int) -> int:
    """Return the length of a string; for a long one with escapes ``expected``, if that is possible."""
    if isinstance(data, str):
        return len(data)
    length = len(data) - 2
    if not expected <= length <= ESCAPE * expected or length == expected:
        return length
    return expected if any(b"\\" in piece for piece in data.pieces(PIECE)) else length


def _refuse_line_breaks(data: str | Span, where: Path) -> None:
    """Refuse base64 with line breaks, as MIME and the ``base64`` command write it.

    Raises:
        Invalid: there is a line break.
    """
    if isinstance(data, str):
        broken = "\n" in data or "\r" in data
    else:
        broken = any(b"\\n" in piece or b"\\r" in piece for piece in data.pieces(PIECE))
    if broken:
        expected, got = "base64 without line breaks", "a line break: join the lines (base64 -w 0)"
        raise invalid(where, "base64", expected, got)


def _unpack(data: str | Span, size: int, where: Path) -> bytearray | memoryview:
    """Decode base64."""
    try:
        raw = (
            pybase64.b64decode_as_bytearray(data, validate=True)
            if isinstance(data, str)
            else _join(data, size)
        )
    except ValueError as error:
        _refuse_line_breaks(data, where)
        expected, got = "base64 of the standard alphabet, with its padding", f"something else: {error}"
        raise invalid(where, "base64", expected, got) from None
    if len(raw) != size:
        raise invalid(where, "length", f"the base64 of {size} bytes", f"that of {len(raw)}")
    return raw


def _join(data: Span, size: int) -> bytearray | memoryview:
    """Decode a long string of base64; return its bytes, at most ``size``.

    Raises:
        ValueError: it is not base64, or has more bytes.
    """
    if len(data) <= PIECE:
        return pybase64.b64decode_as_bytearray(b"".join(map(_plain, data.pieces(PIECE))), validate=True)
    found, filled, rest = np.empty(size, np.uint8), 0, b""
    for piece in _unescaped(data):
        if piece and filled % 3:
            raise ValueError("characters after the padding")
        whole = len(rest) + len(piece) & ~3
        text, rest = rest + piece[: whole - len(rest)], piece[whole - len(rest) :]
        raw = np.frombuffer(pybase64.b64decode_as_bytearray(text, validate=True), np.uint8)
        if filled + len(raw) > size:
            raise ValueError(f"more than {size} bytes")
        found[filled : filled + len(raw)] = raw
        filled += len(raw)
    if rest:
        raise ValueError("incorrect padding")
    return found.data[:filled]


def _unescaped(string: Span) -> Iterator[bytes]:
    """Yield the characters of a long string without escapes: some encoders escape slashes.

    Raises:
        ValueError: it has characters outside ASCII.
    """
    rest = b""
    for piece in string.pieces(PIECE):
        text = rest + piece
        if (place := text.rfind(b"\\", len(text) - ESCAPE)) >= 0:
            text, rest = text[:place], text[place:]
        else:
            rest = b""
        yield _plain(text)
    yield _plain(rest)


def _plain(text: bytes) -> bytes:
    """Return a part of a string without escapes."""
    return orjson.loads(b'"%b"' % text).encode("ascii") if b"\\" in text else text
