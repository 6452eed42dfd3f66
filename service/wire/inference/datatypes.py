"""Datatypes of the Open Inference Protocol, and how their bytes and JSON numbers become tensors."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.problems import Fault, Invalid, pointer
from service.wire import tensors
from service.wire.document import Document
from service.wire.json import show

DATATYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
"""Dtypes that torch stores but mostly cannot compute with."""


def from_bytes(buffer: bytearray, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """Return row-major, little-endian bytes in a buffer as a tensor, without a copy if possible.

    Misaligned elements are copied. A bool is true if its byte is not 0.
    """
    if not (count := prod(shape)):
        return widened(torch.zeros(shape, dtype=dtype))
    stored = torch.uint8 if dtype == torch.bool else dtype
    if offset % dtype.itemsize:
        buffer, offset = buffer[offset : offset + count * dtype.itemsize], 0
    tensor = torch.frombuffer(buffer, dtype=stored, count=count, offset=offset).reshape(shape)
    return widened(tensor != 0 if dtype == torch.bool else tensor)


def from_json(
    document: Document, value: Any, dtype: torch.dtype, shape: Sequence[int], where: tuple[str, ...]
) -> Tensor:
    """Return JSON numbers, nested or flat, as a tensor of a datatype.

    Raises:
        Invalid: they are ragged, not as many as the shape says, or not of the datatype.
    """
    floating = dtype.is_floating_point
    flat = tensors.read(document, value, *where, whole=not floating, nonfinite=floating).tensor.reshape(-1)
    if flat.numel() != prod(shape):
        detail = f"Expected {prod(shape)} elements for shape {list(shape)}; got {flat.numel()}."
        raise Invalid(Fault(pointer(*where), "length", detail))
    if not floating and (place := _first_not_of(flat, dtype)) is not None:
        detail = f"Expected {_words(dtype)}; got {show(flat[place].item())} at element {place}."
        raise Invalid(Fault(pointer(*where), "datatype", detail))
    # from here on all integers have 64 bits
    return (flat.to(dtype) if floating or dtype == torch.bool else flat).reshape(list(shape))


def widened(tensor: Tensor) -> Tensor:
    """Convert unsigned integers to signed ones; to floats if one of them exceeds 64 bits."""
    if tensor.dtype not in WIDE_UNSIGNED:
        return tensor
    values = tensor.numpy()
    beyond = values.dtype.itemsize == 8 and bool((values >> np.uint64(63)).any())
    return torch.as_tensor(values.astype(np.float64 if beyond else np.int64))


def _first_not_of(flat: Tensor, dtype: torch.dtype) -> int | None:
    """Return the index of the first number outside an integer datatype."""
    if not flat.numel() or flat.dtype == torch.bool:
        return None
    least, most = _range(dtype)
    if flat.is_floating_point():
        # numbers beyond signed 64 bits were rounded, perhaps to one more than the largest
        fits = (flat >= least) & (flat == flat.trunc())
        fits &= flat <= float(most) if dtype == torch.uint64 else flat < float(most + 1)
    else:
        fits = (flat >= least) & (flat <= min(most, 2**63 - 1))
    return None if bool(fits.all()) else int((~fits).to(torch.uint8).argmax())


def _range(dtype: torch.dtype) -> tuple[int, int]:
    """Return the smallest and the largest integer of a datatype."""
    return (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _words(dtype: torch.dtype) -> str:
    """Describe the values of an integer datatype."""
    least, most = _range(dtype)
    return "true and false, or 1 and 0" if dtype == torch.bool else f"integers from {least} to {most}"
