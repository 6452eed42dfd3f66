"""Blocks: the rows of a part as immutable bytes, compressed, with a version, and without anything that runs code."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import prod
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from isal import isal_zlib

from service.catalogue.table import Array, Column, Ragged
from service.evaluations.rows import Categories, Rows, bytes_as_texts, texts_as_bytes
from service.problems import Unavailable

MAGIC = b"lossd-rows"
VERSION = 1
ALIGNMENT = 8
LEVEL = 1
LENGTH_BYTES = 8
_compress: Callable[[bytes, int], bytes] = cast(Any, isal_zlib).compress
_decompress: Callable[[memoryview], bytes] = cast(Any, isal_zlib).decompress


class Block(NamedTuple):
    """The compressed rows, and their size before compression."""

    data: bytes
    size: int


def encode_rows(rows: Rows) -> Block:
    """Return rows as a block; buffers of equal bytes are stored once."""
    buffers = _Buffers()
    header = {
        "count": rows.count,
        "ids": None if rows.ids is None else buffers.column(rows.ids),
        "contents": None if rows.contents is None else buffers.column(rows.contents),
        "weights": None if rows.weights is None else buffers.column(rows.weights),
        "labels": {
            name: {"texts": labels.texts, "places": buffers.column(labels.places)}
            for name, labels in rows.labels.items()
        },
        "columns": {name: buffers.column(column) for name, column in rows.columns.items()},
        "buffers": buffers.described,
    }
    described = _padded(orjson.dumps(header), b" ")
    whole = b"".join((len(described).to_bytes(LENGTH_BYTES, "little"), described, *buffers.parts))
    return Block(MAGIC + bytes([VERSION]) + _compress(whole, LEVEL), len(whole))


def decode_rows(data: bytes) -> Rows:
    """Return the rows of a block.

    Raises:
        Unavailable: a newer server has written it, or it is damaged.
    """
    start = len(MAGIC) + 1
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC)] != VERSION:
        raise Unavailable("A stored part is damaged, or a newer server has written it.")
    whole = memoryview(_decompress(memoryview(data)[start:]))
    length = int.from_bytes(whole[:LENGTH_BYTES], "little")
    header: dict[str, Any] = orjson.loads(whole[LENGTH_BYTES : LENGTH_BYTES + length])
    read = _Read(whole[LENGTH_BYTES + length :], header["buffers"])
    named = {name: read.column(one) for name, one in header["columns"].items()}
    return Rows(
        header["count"],
        cast(Ragged | None, read.optional(header["ids"])),
        cast(Array | None, read.optional(header["contents"])),
        cast(Array | None, read.optional(header["weights"])),
        {
            name: Categories(tuple(one["texts"]), cast(Array, read.column(one["places"])))
            for name, one in header["labels"].items()
        },
        named,
    )


def layout_of(rows: Rows) -> dict[str, list[Any]]:
    """Return what all parts of an evaluation share: the kind of each column, and the shape of its entries."""
    return {name: _kind(column) for name, column in rows.columns.items()}


def _kind(column: Column) -> list[Any]:
    """Return the kind of a column and the shape of an entry."""
    if isinstance(column, Ragged):
        return ["list of", *_kind(column.values)]
    return ["text" if column.dtype == object else "number", *column.shape[1:]]


def _padded(data: bytes, filler: bytes = b"\0") -> bytes:
    """Return bytes with an aligned length."""
    return data + filler * (-len(data) % ALIGNMENT)


class _Buffers:
    """Collects arrays as bytes, each distinct one once."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.described: list[list[Any]] = []
        self._places: dict[bytes, int] = {}

    def column(self, column: Column) -> Mapping[str, Any]:
        """Add a column, and return how to find it."""
        if isinstance(column, Ragged):
            return {"lengths": self.column(column.lengths), "values": self.column(column.values)}
        if column.dtype == object:
            texts = texts_as_bytes([text.encode() for text in column.reshape(-1)])
            return {"texts": self.column(texts), "shape": column.shape}
        return {"buffer": self._add(column)}

    def _add(self, array: Array) -> int:
        """Add an array, and return its place among the buffers."""
        raw = np.ascontiguousarray(array)
        described = [array.dtype.newbyteorder("<").str, list(array.shape)]
        data = raw.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        key = blake2b(orjson.dumps(described) + data, digest_size=16).digest()
        if key not in self._places:
            self._places[key] = len(self.described)
            self.described.append([*described, len(data)])
            self.parts.append(_padded(data))
        return self._places[key]


class _Read:
    """Finds the arrays of a block; the same buffer is the same object each time."""

    def __init__(self, data: memoryview, described: list[list[Any]]) -> None:
        self._arrays: list[Array] = []
        self._columns: dict[bytes, Column] = {}
        start = 0
        for dtype, shape, length in described:
            array = np.frombuffer(data[start : start + length], np.dtype(dtype)).reshape(shape)
            self._arrays.append(array)
            start += length + -length % ALIGNMENT
            assert prod(shape) * array.dtype.itemsize == length

    def optional(self, found: Mapping[str, Any] | None) -> Column | None:
        """Return a column, if it is there."""
        return None if found is None else self.column(found)

    def column(self, found: Mapping[str, Any]) -> Column:
        """Return a column."""
        key = orjson.dumps(found)
        if key not in self._columns:
            self._columns[key] = self._column(found)
        return self._columns[key]

    def _column(self, found: Mapping[str, Any]) -> Column:
        """Make a column of its buffers."""
        if "buffer" in found:
            place: int = found["buffer"]
            return self._arrays[place]
        if "texts" in found:
            texts = bytes_as_texts(cast(Ragged, self.column(found["texts"])))
            array: Array = np.empty(len(texts), object)
            array[:] = [text.decode() for text in texts]
            shaped: Array = array.reshape(found["shape"])
            return shaped
        return Ragged(cast(Array, self.column(found["lengths"])), cast(Array, self.column(found["values"])))
