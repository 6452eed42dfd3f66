"""An expression: traced to know its shape and work, then evaluated."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from service.engine.expression.checks import refused_index
from service.engine.expression.operations import INDEXING
from service.engine.expression.program import Program, dtype_of
from service.engine.expression.refused import BadExpression
from service.engine.expression.tracing import Traced, admit_work, traced

MOST_TRACES = 4
"""Traces that an expression keeps, each for other shapes."""
MOST_SIZES = 64
"""Most sizes of the inputs of a trace that is kept: what a client sends must not take memory without a bound."""


class Expression:
    """A compiled expression.

    ``names`` are the names in it; ``bare`` the name if it is nothing else; ``indexing`` the names that stand as the index of `one_hot`
    or `gather`, and ``indices`` those that stand as nothing else, whose gradient does not exist; ``columns`` where each name first
    stands; ``indexes`` whether it calls one of both.

    The methods take the tensors of the names, and maybe others. ``dtype`` is that in which it computes: by default the widest of the
    floating tensors, or float32. Constants, integers, and masks that become numbers have it.
    """

    def __init__(self, source: str, program: Program) -> None:
        names = tuple(program.columns)
        self.source = source
        self.names = frozenset(names)
        self.bare = names[0] if names and not program.steps else None
        self.indexing = program.indexing
        self.indices = program.indices
        self.columns = program.columns
        self.indexes = any(step.operation.name in INDEXING for step in program.steps)
        self._program = program
        self._traces: dict[Any, Traced] = {}

    def trace(self, given: Mapping[str, Tensor], most_work: int, dtype: torch.dtype | None = None) -> Traced:
        """Return the shape, dtype and work for tensors like these, of which only shapes and dtypes are read.

        Raises:
            BadExpression: a name is not given, or shapes or kinds do not fit.
            TooLarge: the work, twice in float64, is over ``most_work``.
        """
        found = self._program.found(given)
        dtype = dtype or dtype_of(found)
        if sum(tensor.ndim for tensor in found) > MOST_SIZES:
            return traced(self._program, given, most_work, dtype)
        key = (dtype, *((tensor.shape, tensor.dtype) for tensor in found))
        kept = self._traces.get(key)
        if kept is not None:
            admit_work(kept.work, most_work, dtype)
            return kept
        made = traced(self._program, given, most_work, dtype)
        self._traces = {**(self._traces if len(self._traces) < MOST_TRACES else {}), key: made}
        return made

    def checked(self, given: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Return the result, after a check of every index of `one_hot` and `gather`.

        Raises:
            BadExpression: an index is not a whole number in range, or a name is not given.
        """
        values = self._program.start(given, dtype)
        for step in self._program.steps:
            if step.operation.name in INDEXING:
                operands = [values[place] for place in step.arguments]
                if refusal := refused_index(step.operation, operands, step.literals):
                    raise BadExpression(refusal, step.column, "range")
            values.append(step.run(values))
        return self._program.finish(values)

    def evaluate(self, given: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Return the result for tensors that `trace` and `checked` have accepted, without their checks.

        An index out of range gives zeros in `one_hot`, and the nearest element in `gather`.
        """
        values = self._program.start(given, dtype)
        append = values.append
        for step in self._program.steps:
            append(step.run(values))
        return self._program.finish(values)
