"""Items that differ in numbers alone, taken out of the parser with a few calls each: most batches are of one kind.

Only what is plain is taken: numbers in rectangular arrays, or packed tensors. All else is left to `native.Reader`,
which also reads one item of each kind, and so decides for all of them.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import pybase64
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.problems import Invalid
from service.wire import tensors
from service.wire.json import MOST_COUNTED, is_array, is_object

PACKED = {*tensors.PACKED}
MOST_NAMES = 16
"""More than an item has."""


class Format(NamedTuple):
    """How a tensor's numbers lie in memory, in so many bytes; ``dtype`` is what a bool is packed as, one byte.

    ``brackets`` is how many of them its JSON has.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int
    brackets: int
    boolean: bool = False


class Taken(NamedTuple):
    """What was taken of an item. ``kind`` is equal for items that differ in their ids and numbers alone.

    ``brackets`` is how many of them the item's JSON has if no array hides where a number belongs.
    """

    kind: Hashable
    echo: Mapping[str, Any]
    formats: Mapping[str, Format]
    buffers: Sequence[Any]
    brackets: int


def take(item: Any, loss: AnyLoss | None) -> Taken | None:
    """Take an item of a loss; None where it needs a closer look."""
    if loss is None or not is_object(item) or len(item) > MOST_NAMES:
        return None
    names: list[str] = [*item.keys()]
    echo: dict[str, Any] = {}
    options: list[Hashable] = []
    inputs: Any = None
    brackets = 0
    for name in names:
        try:
            value = item[name]
        except KeyError:
            # the parser ends a name that is asked for where it has a NUL
            return None
        if name == "inputs":
            inputs = value
        elif name == "id":
            if type(value) not in (str, int, float):
                return None
            echo["id"] = value
            brackets += value.count("[") if isinstance(value, str) else 0
        elif is_object(value) or is_array(value):
            written: bytes = value.mini
            options.append(written)
            brackets += written.count(b"[")
        else:
            options += (type(value), value)
    if not is_object(inputs) or len(inputs) > len(loss.inputs):
        return None
    formats: dict[str, Format] = {}
    buffers: list[Any] = []
    given: list[str] = [*inputs.keys()]
    for name in given:
        spec = loss.inputs.get(name)
        found = spec and _take_tensor(inputs[name], spec.whole)
        if not found:
            return None
        format, buffer = found
        formats[name] = format
        buffers.append(buffer)
        brackets += format.brackets
    if len(formats) < len(given):
        return None
    # a name that the item has twice stays so, and the reader tells of it
    kind = (loss, tuple(names), tuple(options), tuple(formats.items()))
    return Taken(kind, echo, formats, buffers, brackets)


def tensors_of(taken: Taken) -> dict[str, Tensor]:
    """Return the tensors of an item."""
    found: dict[str, Tensor] = {}
    for (name, format), buffer in zip(taken.formats.items(), taken.buffers, strict=True):
        flat = torch.frombuffer(buffer, dtype=format.dtype)
        found[name] = (flat != 0 if format.boolean else flat).reshape(format.shape)
    return found


def stacks(taken: Sequence[Taken]) -> dict[str, Tensor]:
    """Return the tensors of several items of one kind, stacked on a new first axis."""
    found: dict[str, Tensor] = {}
    for place, (name, format) in enumerate(taken[0].formats.items()):
        # torch wants memory that may be written
        joined = bytearray().join([one.buffers[place] for one in taken])
        flat = torch.frombuffer(joined, dtype=format.dtype)
        found[name] = (flat != 0 if format.boolean else flat).reshape(len(taken), *format.shape)
    return found


def _take_tensor(value: Any, whole: bool) -> tuple[Format, Any] | None:
    """Take a tensor: how it lies in memory, and its memory."""
    if is_array(value):
        return _take_array(value, whole)
    return _take_packed(value) if is_object(value) else None


def _take_array(array: Any, whole: bool) -> tuple[Format, Any] | None:
    """Take nested JSON arrays of numbers; ``whole`` ones must be spelled as integers."""
    try:
        format = _format_of_array(tensors.shape_of(array), whole)
        if not format or not tensors.is_rectangular(array, format.shape):
            return None
        buffer = array.as_buffer(of_type="i" if whole else "d")
    except (Invalid, TypeError, ValueError):
        return None
    return (format, buffer) if buffer.size == format.size else None


@lru_cache(maxsize=4096)
def _format_of_array(shape: tuple[int, ...], whole: bool) -> Format | None:
    """Return how a JSON array of that shape lies in memory; None for one that is to be looked at."""
    if 0 in shape or max(shape) >= MOST_COUNTED:
        return None
    brackets = sum(prod(shape[:level]) for level in range(len(shape)))
    return Format(torch.int64 if whole else torch.float64, shape, 8 * prod(shape), brackets)


def _take_packed(packed: Any) -> tuple[Format, Any] | None:
    """Take a packed tensor."""
    if len(packed) != len(PACKED) or {*packed.keys()} != PACKED:
        return None
    name, shape, data = packed["dtype"], packed["shape"], packed["data"]
    if not (isinstance(name, str) and name in tensors.DTYPES and isinstance(data, str) and is_array(shape)):
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
    format = Format(dtype, sizes, prod(sizes) * dtype.itemsize, 1, boolean)
    return (format, raw) if len(raw) == format.size else None
