"""A compiled expression: steps in order over a list of values, so that no depth of the source is a depth of the stack."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import copysign, inf, isfinite, isinf
from typing import Any

import torch
from torch import Tensor

from service.engine.expression.checks import refused_kinds
from service.engine.expression.operations import FUNCTIONS, MASKS, NUMBERS, Operation, Scalar, as_number
from service.engine.expression.refused import BadExpression
from service.problems import quoted

_LARGEST = torch.finfo(torch.float32).max
Tensors = Mapping[str, Tensor]


class Registers(list[Any]):
    """The values of the constants, the names and the steps so far, and where and in what dtype the expression computes."""

    __slots__ = ("device", "dtype")

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.dtype = dtype
        self.device = device


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    ``arguments`` are places of values, ``literals`` the arguments that are no tensors. ``made`` are places of constants that become tensors.
    ``floating``: masks and integers become numbers first.
    """

    operation: Operation
    arguments: tuple[int, ...]
    literals: tuple[Any, ...]
    column: int
    made: frozenset[int]
    floating: bool
    run: Callable[[Registers], Tensor]


@dataclass(frozen=True, eq=False)
class Program:
    """The constants, the names with their columns, and the steps; the result is the value at ``result``.

    ``indexing`` are the names used as an index, ``indices`` those used as nothing else.
    """

    constants: tuple[Scalar | None, ...]
    columns: Mapping[str, int]
    indexing: frozenset[str]
    indices: frozenset[str]
    steps: tuple[Step, ...]
    result: int

    def found(self, given: Tensors) -> list[Tensor]:
        """Return the tensors of the names.

        Raises:
            BadExpression: one is not given.
        """
        try:
            return [given[name] for name in self.columns]
        except KeyError as error:
            name: str = error.args[0]
            raise _unknown(name, given, self.columns[name]) from None

    def start(self, given: Tensors, dtype: torch.dtype | None) -> Registers:
        """Return the values before the first step.

        Raises:
            BadExpression: a name is not given.
        """
        found = self.found(given)
        values = Registers(dtype or dtype_of(found), found[0].device if found else torch.device("cpu"))
        values += self.constants if values.dtype is torch.float64 else self.narrow
        for name, tensor in zip(self.columns, found, strict=True):
            kept = tensor.dtype is values.dtype or tensor.dtype is torch.bool or name in self.indices
            values.append(tensor if kept else tensor.to(values.dtype))
        return values

    @cached_property
    def narrow(self) -> tuple[Scalar | None, ...]:
        """The constants for float32: those beyond it are infinite, where torch would refuse some."""
        return tuple(c if c is None or abs(c) <= _LARGEST else copysign(inf, c) for c in self.constants)

    def constant_at(self, place: int) -> Scalar | None:
        """Return the constant at a place, if it has one."""
        return self.constants[place] if place < len(self.constants) else None

    def is_absent(self, place: int) -> bool:
        """Return whether a place stands for an argument that is left out."""
        return place < len(self.constants) and self.constants[place] is None

    def finish(self, values: Registers) -> Tensor:
        """Return the result of values after the last step."""
        result = values[self.result]
        return result if isinstance(result, Tensor) else tensor_of(result, values)


def _unknown(name: str, given: Tensors, column: int) -> BadExpression:
    """Return the refusal of a name that is not given."""
    if name in FUNCTIONS:
        return BadExpression(f"Expected {name}(...), a call; got the name alone.", column)
    names = ", ".join(quoted(one) for one in sorted(given)[:20]) or "no names, as there are no inputs"
    return BadExpression(f"Expected one of {names}; got {quoted(name)}.", column, "unknown")


def dtype_of(found: Sequence[Tensor]) -> torch.dtype:
    """Return the widest floating dtype of the tensors, or float32."""
    dtypes = [tensor.dtype for tensor in found if tensor.is_floating_point()]
    widest = dtypes[0] if dtypes else torch.float32
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


def tensor_of(constant: Scalar, values: Registers) -> Tensor:
    """Return a constant as a tensor of the dtype of the expression, or a mask."""
    dtype = torch.bool if isinstance(constant, bool) else values.dtype
    return torch.scalar_tensor(constant, dtype=dtype, device=values.device)


def step_of(
    operation: Operation,
    arguments: tuple[int, ...],
    literals: tuple[Any, ...],
    column: int,
    constants: Mapping[int, Scalar | None],
) -> Step:
    """Build a step. ``constants`` are the values at the places that hold constants."""
    fixed = frozenset(place for place in arguments if constants.get(place) is not None)
    made, floating = fixed, operation.floating
    if operation.scalars:
        mixed = operation.name == "clamp" and any(place not in constants for place in arguments[1:])
        made = fixed if mixed else fixed & {arguments[0]} if operation.name == "clamp" else frozenset[int]()
        floating = floating or mixed or any(type(constants[place]) is float for place in fixed)
    run = _runner(operation.make(*literals), arguments, made, floating, operation.typed)
    return Step(operation, arguments, literals, column, made, floating, run)


def _runner(
    compute: Callable[..., Tensor],
    arguments: tuple[int, ...],
    made: frozenset[int],
    floating: bool,
    typed: bool,
) -> Callable[[Registers], Tensor]:
    """Return a function of the values. ``made``: places of constants that become tensors."""
    if typed:
        [place] = arguments
        return lambda values: compute(_read(values, place, made), values.dtype)
    if not made and not floating:
        return _plain(compute, arguments)
    if len(arguments) == 1 and not made:
        [place] = arguments
        return lambda values: compute(as_number(values[place], values.dtype))

    def run(values: Registers) -> Tensor:
        read = [_read(values, place, made) for place in arguments]
        return compute(*[as_number(value, values.dtype) for value in read] if floating else read)

    return run


def _plain(compute: Callable[..., Tensor], arguments: tuple[int, ...]) -> Callable[[Registers], Tensor]:
    """Return a function of values that need no conversion."""
    if len(arguments) == 1:
        [place] = arguments
        return lambda values: compute(values[place])
    if len(arguments) == 2:
        left, right = arguments
        return lambda values: compute(values[left], values[right])
    return lambda values: compute(*[values[place] for place in arguments])


def _read(values: Registers, place: int, made: frozenset[int]) -> Any:
    """Return a value, a constant as a tensor."""
    return tensor_of(values[place], values) if place in made else values[place]


def folded(operation: Operation, operands: Sequence[Any], column: int) -> Scalar:
    """Compute an operation on constants in float64.

    Raises:
        BadExpression: the result is beyond float64, or the operands are not of the right kind.
    """
    kinds = [MASKS if isinstance(operand, bool) else NUMBERS for operand in operands]
    if refusal := refused_kinds(operation, kinds):
        raise BadExpression(refusal, column, "type")
    dtypes = [torch.bool if kind == MASKS and not operation.floating else torch.float64 for kind in kinds]
    tensors = [torch.tensor(o, dtype=dtype) for o, dtype in zip(operands, dtypes, strict=True)]
    found: Scalar = operation.make()(*tensors).item()
    if operation.name not in ("+", "-", "*", "**"):
        return found
    if isinf(found) and all(map(isfinite, operands)) and not (operation.name == "**" and operands[0] == 0):
        raise BadExpression("Expected constants within float64; got a result beyond it.", column, "range")
    whole = all(type(operand) is int for operand in operands) and isfinite(found)
    return int(found) if whole and found == int(found) and abs(found) <= 2**53 else found
