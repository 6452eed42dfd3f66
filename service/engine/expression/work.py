"""Count the work of operators of torch on the `meta` device, where nothing is computed and no memory taken."""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from service.engine.cost import UNIT_BYTES, UNIT_S
from service.problems import Fault, TooLarge

OPERATOR_UNITS = 45
"""Units of an operator besides its elements: 5 µs, with its share of Python and autograd."""
ELEMENT_S = 2.5e-8
"""Most seconds for an element of an elementwise operator or a reduction, in float32."""
PRODUCT_S = 1e-9
"""Most seconds for a multiplication and an addition in a matrix product."""
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot"}
_BYTES = {torch.bool: 1, torch.int64: 8}
"""Bytes of an element; others count as float32, since float64 counts twice."""


class Counted(TorchDispatchMode):
    """Counts units of work, and raises `TooLarge` as soon as there are more than ``most``."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.units = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.add(OPERATOR_UNITS)
        if not _is_view(func):
            self.add(_units(func, args, found))
        return found

    def add(self, units: float) -> None:
        """Add units.

        Raises:
            TooLarge: there are more than admitted.
        """
        self.units += units
        if self.units > self.most:
            refuse_work(self.most)


def refuse_work(most: int) -> None:
    """Refuse an expression over the limit.

    Raises:
        TooLarge: always.
    """
    detail = f"Expected at most {most} elements of work (LOSSD_MAX_WORK); got an expression that takes more."
    raise TooLarge(detail, Fault("", "work", detail))


def _is_view(func: Any) -> bool:
    """Return whether an operator returns a view of its argument."""
    returned = func._schema.returns
    info = returned[0].alias_info if returned else None
    return info is not None and not info.is_write


def _units(func: Any, args: Any, found: Any) -> float:
    """Return the units of an operator: the larger of its share of time and of memory."""
    results, operands = list(_tensors(found)), list(_tensors(args))
    size = max((tensor.numel() for tensor in (*results, *operands)), default=0)
    seconds = size * ELEMENT_S
    if func._schema.name.partition("::")[2] in _PRODUCTS:
        seconds += max((_products(a, b) for a, b in pairwise(operands)), default=0) * PRODUCT_S
    taken = sum(tensor.numel() * _BYTES.get(tensor.dtype, 4) for tensor in results)
    return max(seconds / UNIT_S, taken / UNIT_BYTES)


def _products(left: Tensor, right: Tensor) -> int:
    """Return the multiplications of a matrix product."""
    columns = right.shape[-1] if right.ndim > 1 else 1
    return prod(left.shape) * columns if left.ndim > 1 or left.shape == right.shape else 0


def _tensors(found: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, tuple | list):
        for one in found:
            yield from _tensors(one)
