"""Write values as JSON in parts: large tensors a piece at a time, so that other threads get their turn."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import orjson
import pybase64
import torch
from torch import Tensor

PIECE = 1 << 15
"""Numbers written at once, in a millisecond or two."""
PACKED = 3 << 18
"""Bytes written as base64 at once, in less than a millisecond; three bytes are four characters."""
MARK = secrets.token_hex(16)
"""Placeholder for a tensor that is written later; a secret, so that no client can put it into a string."""
Part = bytes | memoryview
OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS


@dataclass(frozen=True, slots=True, eq=False)
class Large:
    """A tensor written in pieces."""

    tensor: Tensor
    encoding: str

    def parts(self) -> Iterator[Part]:
        """Yield its JSON."""
        return _packed(self.tensor) if self.encoding == "base64" else _array(as_json(self.tensor))


def write(tensor: Tensor, encoding: str) -> Any:
    """Return a tensor in a form that `parts` takes: a number, an array, or an object with base64."""
    if tensor.numel() > PIECE:
        return Large(tensor, encoding)
    if encoding == "base64":
        return orjson.Fragment(b"".join(_packed(tensor)))
    return tensor.item() if tensor.dim() == 0 else as_json(tensor)


def write_named(tensors: Mapping[str, Tensor], encoding: str) -> dict[str, Any]:
    """Return each of several tensors in the form that `write` returns."""
    return {name: write(tensor, encoding) for name, tensor in tensors.items()}


def write_each(stack: Tensor, encoding: str) -> Sequence[Any]:
    """Return each of several stacked tensors in the form that `write` returns."""
    if encoding == "base64" or prod(stack.shape[1:]) > PIECE:
        return [write(tensor, encoding) for tensor in stack.unbind()]
    written = as_json(stack)
    return written.tolist() if stack.dim() == 1 else [*written]


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return a tensor's row-major bytes, without a copy if it is contiguous."""
    # a single element may have any stride, and be contiguous
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data


def as_json(tensor: Tensor) -> Any:
    """Return a tensor as an array that orjson can write."""
    # numpy has no bfloat16, and float32 holds every half-precision number exactly
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return (tensor.float() if half else tensor).contiguous().numpy()


def parts(value: Any) -> Iterator[Part]:
    """Yield the JSON of a value in parts; results of `write` may occur anywhere in it."""
    left_out: list[Large] = []

    def leave_out(large: Large) -> str:
        left_out.append(large)
        return MARK

    text = orjson.dumps(value, default=leave_out, option=OPTIONS)
    if not left_out:
        yield text
        return
    first, *others = text.split(b'"%b"' % MARK.encode())
    yield first
    for large, behind in zip(left_out, others, strict=True):
        yield from large.parts()
        yield behind


def joined(parts: Iterable[Part]) -> Iterator[bytes]:
    """Join short parts until they are about as long as a piece."""
    some: list[Part] = []
    length = 0
    for part in parts:
        some.append(part)
        length += len(part)
        if length >= PACKED:
            yield b"".join(some)
            some, length = [], 0
    if some:
        yield b"".join(some)


def _array(array: Any) -> Iterator[Part]:
    """Yield the JSON of an array of at least one dimension."""
    row = prod(array.shape[1:])
    yield b"["
    if row > PIECE:
        for place, one in enumerate(array):
            yield from (b"," if place else b"", *_array(one))
    else:
        step = max(1, PIECE // max(1, row))
        for start in range(0, len(array), step):
            text = orjson.dumps(array[start : start + step], option=OPTIONS)
            yield from (b"," if start else b"", memoryview(text)[1:-1])
    yield b"]"


def _packed(tensor: Tensor) -> Iterator[bytes]:
    """Yield the JSON of a packed tensor."""
    described = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    yield orjson.dumps(described)[:-1] + b',"data":"'
    raw = raw_bytes(tensor)
    for start in range(0, len(raw), PACKED):
        yield pybase64.b64encode(raw[start : start + PACKED])
    yield b'"}'
