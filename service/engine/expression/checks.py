"""Say why an operation does not accept its operands: kinds, shapes, values of indices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from service.engine.expression.operations import INTEGERS, MASKS, NUMBERS, Operation, kind_of, shapes

MOST_DIMS = 24
"""Most dimensions of a result."""
_HINTS = {
    "-": ", or ~ for the other elements",
    "mean": ": write where(mask, 1, 0)",
}


def refused_kinds(operation: Operation, operands: Sequence[Any]) -> str:
    """Return why an operation does not accept these kinds of operands; empty if it does."""
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    kinds = [kind_of(tensor) for tensor in tensors]
    name = operation.name
    if refused := [kind for kind in kinds if kind in operation.refuses]:
        expected = MASKS if NUMBERS in operation.refuses else NUMBERS
        hint = _HINTS.get(name, "") if refused[0] == MASKS else ""
        return f"Expected {expected} for {name}{hint}; got {refused[0]}."
    if name == "where" and kinds[0] != MASKS:
        return f"Expected a mask as the condition of where; got {kinds[0]}."
    if name in ("@", "dot") and kinds != [NUMBERS, NUMBERS]:
        return f"Expected numbers for {name}; got {' and '.join(kinds)}."
    if name == "**" and NUMBERS not in kinds:
        exponent = operands[1]
        negative = type(exponent) is int and exponent < 0
        if negative or kinds == [MASKS, MASKS]:
            return f"Expected numbers for {name}; got {INTEGERS if INTEGERS in kinds else MASKS}."
    return ""


def refused_shapes(operation: Operation, operands: Sequence[Any], statics: Sequence[Any]) -> str:
    """Return why torch did not accept operands of these shapes."""
    tensors = [operand for operand in operands if operand is not None]
    if operation.name == "[]":
        return f"Expected an index within the shape {shapes(tensors)}; got {_key(statics[0])}."
    dims = [
        (p.name, value)
        for p, value in zip(_literals(operation), statics, strict=False)
        if p.kind == "dim" and value is not None
    ]
    first = tensors[0]
    rank = max(first.ndim if isinstance(first, Tensor) else 0, 1)
    for name, dim in dims:
        if not -rank <= dim < rank:
            return f"Expected {name} from {-rank} to {rank - 1} for the shape {shapes([first])}; got {dim}."
    if operation.name == "reshape":
        return f"Expected sizes with as many elements as the shape {shapes(tensors)}; got {list(statics)}."
    if operation.rule:
        return f"Expected {operation.rule} for {operation.name}; got {shapes(tensors)}."
    if any(isinstance(tensor, Tensor) and not tensor.numel() for tensor in tensors):
        return f"Expected elements for {operation.name}; got the shape {shapes(tensors)}."
    return f"Expected other shapes for {operation.name}; got {shapes(tensors)}."


def refused_result(operation: Operation, found: Tensor) -> str:
    """Return why a result is not accepted that torch would not compute from numbers, though it does on `meta`."""
    if found.ndim > MOST_DIMS:
        return f"Expected at most {MOST_DIMS} dimensions for {operation.name}; got {found.ndim}."
    return ""


def _literals(operation: Operation) -> list[Any]:
    return [p for p in operation.parameters if p.kind != "tensor"]


def _key(key: Sequence[Any]) -> str:
    """Write an index as in a source."""
    return f"[{', '.join(map(_part_of_key, key))}]"


def _part_of_key(part: Any) -> str:
    if part is ...:
        return "..."
    if not isinstance(part, slice):
        return str(part)
    ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
    return ":".join([*ends, str(part.step)] if part.step is not None else ends)


def refused_index(operation: Operation, operands: Sequence[Tensor], statics: Sequence[Any]) -> str:
    """Return why the values of an index are not accepted; empty if they are."""
    index = operands[1] if operation.name == "gather" else operands[0]
    size = operands[0].shape[statics[0]] if operation.name == "gather" and operands[0].ndim else 1
    size = statics[0] if operation.name == "one_hot" else size
    if not index.numel() or index.dtype is torch.bool and size > 1:
        return ""
    number = index.to(torch.float64) if index.is_floating_point() else index.to(torch.int64)
    good = (number >= 0) & (number < size)
    if number.is_floating_point():
        good &= number == number.floor()
    if bool(good.all()):
        return ""
    first = number[~good].reshape(-1)[0].item()
    return f"Expected whole numbers from 0 to {size - 1} in {operation.name}; got {first:.6g}."
