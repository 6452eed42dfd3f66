"""Fast path for items that differ only in numbers, as in most batches: a few parser calls for each.

Only plain values are taken: numbers in rectangular arrays, or packed tensors. Everything else is left to `request.read`,
which also reads the first item of each kind, and so decides what they have in common.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pybase64
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss, Catalogue
from service.engine.call import Sent
from service.problems import Invalid
from service.wire import tensors
from service.wire.arrays import read_long
from service.wire.document import Document
from service.wire.json import ARRAY, OBJECT, PARSED
from service.wire.numbers import EXACT, How, plain_shape
from service.wire.text import Span
from service.wire.written import raw_bytes

PACKED = {*tensors.PACKED}
MOST_NAMES = 16
"""More names than a valid item has."""
JOINED = 1 << 22
"""Most bytes joined at once."""


class Format(NamedTuple):
    """Layout of a tensor's numbers in memory; a bool is packed as one byte of ``dtype``.

    ``addressable``: they came as JSON arrays, so elements have JSON Pointers.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int
    boolean: bool = False
    addressable: bool = True


class Taken(NamedTuple):
    """The values taken from an item: its loss, the names of its members, and their contents.

    ``kind`` is equal for items that differ only in ids and numbers, and mostly the same object for neighbours: hashing it
    takes longer than reading a short tensor.
    """

    loss: AnyLoss
    names: Sequence[str]
    options: Sequence[Hashable]
    kind: Hashable
    echo: Mapping[str, Any]
    formats: Mapping[str, Format]
    buffers: Sequence[Any]


def take(
    document: Document, item: Any, catalogue: Catalogue, default: str | None, like: Taken | None = None
) -> Taken | None:
    """Take an item of the loss that it or ``default`` names; return None if it needs the full reader.

    ``like`` was taken from an item with the same nesting.

    Raises:
        Unreadable: a part of the item that is parsed only here is not JSON.
    """
    if type(item) is not OBJECT or len(item) > MOST_NAMES:
        return None
    names: tuple[str, ...] = (*item.keys(),)
    echo: dict[str, Any] = {}
    options: list[Hashable] = []
    inputs: Any = None
    named: Any = default
    for name in names:
        try:
            value: Any = item[name]
        except KeyError:
            # the parser cuts a requested name at a NUL
            return None
        if name == "inputs":
            inputs = value
        elif name == "id":
            if (value := document.resolve(value)) is None:
                continue
            if not is_exact(value):
                return None
            echo["id"] = value
        elif name == "loss":
            named = document.resolve(value) if document.is_split else value
        else:
            options += (value.mini,) if type(value) in PARSED else (type(value), value)
    loss = catalogue.find(named)
    if loss is None or type(inputs) is not OBJECT or len(inputs) > len(loss.inputs):
        return None
    nested = like is not None and (like.loss, like.names) == (loss, names)
    taken = (like and nested and _take_nested(inputs, like.formats)) or _take_inputs(document, inputs, loss)
    if taken is None:
        return None
    formats, buffers = taken
    if like and nested and formats is like.formats and options == like.options:
        return Taken(loss, names, options, like.kind, echo, formats, buffers)
    # a repeated name stays repeated, so that the reader reports it
    kind = loss, names, tuple(options), tuple(formats.items())
    return Taken(loss, names, options, kind, echo, formats, buffers)


def _take_nested(
    inputs: Any, formats: Mapping[str, Format]
) -> tuple[Mapping[str, Format], Sequence[Any]] | None:
    """Take the tensors of an item with the nesting of these formats; return None if its layout differs after all."""
    if [*inputs.keys()] != [*formats]:
        return None
    buffers: list[Any] = []
    for name, format in formats.items():
        array = inputs[name]
        if type(array) is not ARRAY:
            return None
        try:
            buffers.append(array.as_buffer(of_type="i" if format.dtype is torch.int64 else "d"))
        except (TypeError, ValueError):
            return None
        # `nested_alike` cannot tell an empty array from one with a single number
        if memoryview(buffers[-1]).nbytes != format.size:
            return None
    return formats, buffers


def _take_inputs(
    document: Document, inputs: Any, loss: AnyLoss
) -> tuple[Mapping[str, Format], Sequence[Any]] | None:
    """Take the tensors of an item."""
    formats: dict[str, Format] = {}
    buffers: list[Any] = []
    names: list[str] = [*inputs.keys()]
    for name in names:
        if (spec := loss.inputs.get(name)) is None:
            return None
        value: Any = inputs[name]
        if type(value) is ARRAY:
            if not (shape := plain_shape(value)):
                return None
            formats[name] = _format_of_array(shape, spec.whole)
            try:
                # whole numbers must be written as integers
                buffers.append(value.as_buffer(of_type="i" if spec.whole else "d"))
            except (TypeError, ValueError):
                return None
        elif found := _take_tensor(document, value, spec.whole):
            formats[name] = found[0]
            buffers.append(found[1])
        else:
            return None
    return None if len(formats) < len(names) else (formats, buffers)


def is_exact(identity: Any) -> bool:
    """Return whether an id is a string, or a number that is echoed exactly."""
    return type(identity) in (str, int) or (type(identity) is float and abs(identity) < EXACT)


def inputs_of(taken: Taken) -> dict[str, Sent]:
    """Return the tensors of an item, equal to what the reader would return."""
    found: dict[str, Sent] = {}
    for (name, format), buffer in zip(taken.formats.items(), taken.buffers, strict=True):
        found[name] = Sent(_shaped(format, buffer, format.shape), format.addressable)
    return found


def stacks(taken: Sequence[Taken]) -> dict[str, Tensor]:
    """Return the tensors of items of one kind, stacked on a new first axis."""
    found: dict[str, Tensor] = {}
    for place, (name, format) in enumerate(taken[0].formats.items()):
        step = max(1, JOINED // format.size)
        joined = np.empty(len(taken) * format.size, np.uint8)
        for first in range(0, len(taken), step):
            some = b"".join([one.buffers[place] for one in taken[first : first + step]])
            joined[first * format.size :][: len(some)] = np.frombuffer(some, np.uint8)
        found[name] = _shaped(format, joined, (len(taken), *format.shape))
    return found


def _shaped(format: Format, buffer: Any, shape: tuple[int, ...]) -> Tensor:
    """View memory as a tensor."""
    flat = torch.frombuffer(buffer, dtype=format.dtype)
    return (flat != 0 if format.boolean else flat).reshape(shape)


def _take_tensor(document: Document, value: Any, whole: bool) -> tuple[Format, Any] | None:
    """Take a packed tensor, or a long array: its layout and its memory."""
    if type(value) is OBJECT:
        return _take_packed(document, value)
    value = document.resolve(value)
    return _take_long(value, whole) if isinstance(value, Span) and value.is_array else None


def _take_long(span: Span, whole: bool) -> tuple[Format, Any] | None:
    """Take a long JSON array of numbers."""
    try:
        tensor = read_long(span, How(whole=whole)).tensor
    except Invalid:
        return None
    if not tensor.numel() or tensor.dtype != (torch.int64 if whole else torch.float64):
        return None
    return Format(tensor.dtype, tuple(tensor.shape), tensor.nbytes), raw_bytes(tensor)


@lru_cache(maxsize=4096)
def _format_of_array(shape: tuple[int, ...], whole: bool) -> Format:
    """Return the layout of a JSON array of that shape."""
    return Format(torch.int64 if whole else torch.float64, shape, 8 * prod(shape))


def _take_packed(document: Document, packed: Any) -> tuple[Format, Any] | None:
    """Take a packed tensor."""
    if len(packed) != len(PACKED) or {*packed.keys()} != PACKED:
        return None
    name, shape, data = (document.resolve(packed[one]) for one in tensors.PACKED)
    if not (
        isinstance(name, str) and name in tensors.DTYPES and isinstance(data, str) and type(shape) in PARSED
    ):
        return None
    sizes = tuple(shape)
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        return None
    try:
        raw = pybase64.b64decode_as_bytearray(data, validate=True)
    except ValueError:
        return None
    boolean = name == "bool"
    dtype = torch.uint8 if boolean else tensors.DTYPES[name]
    format = Format(dtype, sizes, prod(sizes) * dtype.itemsize, boolean, addressable=False)
    return (format, raw) if len(raw) == format.size else None
