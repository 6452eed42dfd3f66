"""Say why an operation does not accept the kinds of its operands, or the values of an index."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from service.engine.expression.operations import INDEXING, INTEGERS, MASKS, NUMBERS, Operation

_HINTS = {"-": " (of two masks, a & ~b)", "mean": " (of a mask, mean(where(mask, 1, 0)))"}


def refused_kinds(operation: Operation, kinds: Sequence[str], exponent: object = None) -> str:
    """Return why an operation does not accept these kinds of operands; empty if it does.

    ``exponent`` is that of a power, if it is a constant.
    """
    name = operation.name
    if refused := [kind for kind in kinds if kind in operation.refuses]:
        expected = MASKS if NUMBERS in operation.refuses else f"numbers{_HINTS.get(name, '')}"
        return f"Expected {expected} for {name}; got {refused[0]}."
    if name == "where" and kinds[0] != MASKS:
        return f"Expected a mask as the condition of where; got {kinds[0]}."
    if name == "**" and NUMBERS not in kinds:
        negative = type(exponent) is int and exponent < 0
        if negative or INTEGERS not in kinds:
            return f"Expected numbers for **; got {kinds[0]}."
    return ""


def refused_index(operation: Operation, operands: Sequence[Any], literals: Sequence[int]) -> str:
    """Return why the values of an index are not accepted; empty if they are."""
    size = literals[0] if operation.name == "one_hot" else _size(operands[0], literals[0])
    index: object = operands[INDEXING[operation.name]]
    values = index.reshape(-1) if isinstance(index, Tensor) else torch.tensor([index], dtype=torch.float64)
    values = values.to(torch.int64) if values.dtype is torch.bool else values
    good = (values >= 0) & (values < size)
    if values.is_floating_point():
        good = good & (values == values.floor())
    if bool(good.all()):
        return ""
    got = values[~good][0].item()
    return f"Expected whole numbers from 0 to {size - 1} in {operation.name}; got {got:.6g}."


def _size(x: object, dim: int) -> int:
    """Return the size of a dimension of a tensor or constant."""
    return x.shape[dim] if isinstance(x, Tensor) and x.ndim else 1
