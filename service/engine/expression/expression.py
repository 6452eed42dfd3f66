"""An expression: traced on `meta` to know its shape and work, then evaluated on numbers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.engine.expression.checks import (
    refused_index,
    refused_kinds,
    refused_result,
    refused_shapes,
)
from service.engine.expression.operations import INDEXING
from service.engine.expression.program import Program, Step, Values, tensor_of
from service.engine.expression.refused import BadExpression
from service.engine.expression.work import Counted, refuse_work

MOST_TRACES = 4
"""Traces that an expression keeps, each of other shapes."""
MOST_SIZES = 64
"""Most sizes of the inputs of a trace that is kept: what a stranger sends must not take memory without a bound."""
_TORCH = (RuntimeError, IndexError, TypeError, ValueError, ArithmeticError)
"""Errors of torch for operands that do not fit."""


class Traced(NamedTuple):
    """The shape, dtype and units of work of a result, with those of its gradients; float64 does not count twice here."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    work: int


class Expression:
    """A compiled expression.

    ``names`` are the names in it; ``bare`` the name if it is nothing else; ``indices`` the names that stand only as the index of
    `one_hot` or `gather`, whose gradient does not exist; ``columns`` where each name first stands; ``indexes`` whether it calls one of both.

    The methods take the tensors of the names, and maybe others. ``dtype`` is that of constants, and of numbers made from masks and
    integers: by default the widest of the floating tensors, or float32.
    """

    def __init__(self, source: str, program: Program) -> None:
        names = tuple(program.columns)
        self.source = source
        self.names = frozenset(names)
        self.bare = names[0] if names and not program.steps else None
        self.indices = program.indices
        self.columns = program.columns
        self.indexes = any(step.operation.name in INDEXING for step in program.steps)
        self._program = program
        self._traces: dict[Any, tuple[Traced, int]] = {}

    def trace(self, given: Mapping[str, Tensor], most_work: int, dtype: torch.dtype | None = None) -> Traced:
        """Return the shape, dtype and work for tensors like these, which are on `meta`.

        Raises:
            BadExpression: a name is not given, or shapes or kinds do not fit.
            TooLarge: the work, twice in float64, is over ``most_work``.
        """
        key = self._key(given, dtype)
        found = self._traces.get(key) if key is not None else None
        if found is None:
            found = self._trace(given, most_work, dtype)
            if key is not None:
                if len(self._traces) >= MOST_TRACES:
                    self._traces = {}
                self._traces[key] = found
        traced, units = found
        if units > most_work:
            refuse_work(most_work)
        return traced

    def _key(self, given: Mapping[str, Tensor], dtype: torch.dtype | None) -> Any:
        """Return what decides a trace, or None if it is too long to keep."""
        if not self.names <= given.keys():
            return None
        kinds = [(given[name].shape, given[name].dtype) for name in self.columns]
        return None if sum(len(shape) for shape, _ in kinds) > MOST_SIZES else (dtype, *kinds)

    def _trace(
        self, given: Mapping[str, Tensor], most_work: int, dtype: torch.dtype | None
    ) -> tuple[Traced, int]:
        """Run forward and backward on `meta`; return the trace and the units that count against the limit."""
        program = self._program
        leaves = {
            name: tensor.detach().requires_grad_(tensor.is_floating_point() and name not in self.indices)
            for name, tensor in given.items()
            if name in self.names
        }
        with torch.enable_grad():
            values = program.start(leaves, dtype)
            twice = 2 if values.dtype is torch.float64 else 1
            values.device = torch.device("meta")
            with Counted(most_work // twice) as counted:
                counted.add(sum(tensor.numel() for tensor in leaves.values()))
                for step in program.steps:
                    values.append(_tried(step, values, counted))
                result = program.finish(values)
                _backward(result, leaves)
        work = round(counted.units)
        return Traced(tuple(result.shape), result.dtype, work), twice * work

    def checked(self, given: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Return the result, after a check of every index of `one_hot` and `gather`.

        Raises:
            BadExpression: an index is not a whole number in range.
        """
        values = self._program.start(given, dtype)
        for step in self._program.steps:
            if step.operation.name in INDEXING:
                operands = [values[place] for place in step.arguments]
                operands = [o if isinstance(o, Tensor) else tensor_of(o, values) for o in operands]
                if refusal := refused_index(step.operation, operands, step.statics):
                    raise BadExpression(refusal, step.column, "range")
            values.append(step.run(values))
        return self._program.finish(values)

    def evaluate(self, given: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Return the result for tensors that `trace` and `checked` have accepted, without checks.

        An index out of range gives zeros in `one_hot`, and the nearest element in `gather`.
        """
        program = self._program
        values = program.start(given, dtype)
        append = values.append
        for step in program.steps:
            append(step.run(values))
        return program.finish(values)


def _tried(step: Step, values: Values, counted: Counted) -> Tensor:
    """Run a step on `meta`.

    Raises:
        BadExpression: torch does not accept its operands, or would not on numbers.
    """
    operation, statics = step.operation, step.statics
    operands = [values[place] for place in step.arguments]
    if refusal := refused_kinds(operation, operands):
        raise BadExpression(refusal, step.column, "type")
    if operation.name == "one_hot" and isinstance(operands[0], Tensor):
        counted.add((operands[0].numel() + 1) * statics[0] * 0.25)
    try:
        found = step.run(values)
    except _TORCH as error:
        refusal = refused_shapes(operation, operands, statics)
        raise BadExpression(refusal, step.column, "shape") from error
    if refusal := refused_result(operation, found):
        raise BadExpression(refusal, step.column, "shape")
    return found


def _backward(result: Tensor, leaves: Mapping[str, Tensor]) -> None:
    """Run the backward pass on `meta`."""
    wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
    if wanted and result.requires_grad:
        torch.autograd.grad(result, wanted, torch.empty_like(result), allow_unused=True)
