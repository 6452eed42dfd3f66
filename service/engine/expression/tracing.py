"""Follow shapes, kinds and work through a program, without computing anything."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from service.engine.expression.checks import refused_kinds
from service.engine.expression.operations import INTEGERS, MASKS, NUMBERS, kind_of
from service.engine.expression.program import Program, Step
from service.engine.expression.refused import BadExpression
from service.engine.expression.shapes import MOST_DIMS, MOST_ELEMENTS, Misfit, Shape, inner_size, written
from service.problems import Fault, TooLarge

STEP_UNITS = 90
"""Units of a step besides its elements, with its gradient: 10 µs."""
PRODUCTS_PER_UNIT = 16
"""Multiplications of a matrix product, with its gradients, for a unit."""
_DTYPES = {MASKS: torch.bool, INTEGERS: torch.int64}


class Traced(NamedTuple):
    """The shape, dtype and units of work of a result with its gradients; float64 does not count twice here."""

    shape: Shape
    dtype: torch.dtype
    work: int


class _Form(NamedTuple):
    shape: Shape
    kind: str


def traced(program: Program, given: Mapping[str, Tensor], most_work: int, dtype: torch.dtype) -> Traced:
    """Follow a program for tensors like these.

    Raises:
        BadExpression: shapes or kinds do not fit.
        TooLarge: the work, twice in float64, is over ``most_work``.
    """
    forms = [_Form((), kind_of(constant)) for constant in program.constants]
    for name in program.columns:
        kind = MASKS if given[name].dtype is torch.bool else NUMBERS
        forms.append(_Form(tuple(given[name].shape), kind))
    work = sum(prod(form.shape) for form in forms)
    for step in program.steps:
        operands = [forms[place] for place in step.arguments if not program.is_absent(place)]
        form = _result(step, operands, program)
        forms.append(form)
        work += _units(step, operands, form)
        admit_work(work, most_work, dtype)
        _check_size(step, form.shape)
    shape, kind = forms[program.result]
    if program.result < len(program.constants) and kind != MASKS:
        kind = NUMBERS
    admit_work(work, most_work, dtype)
    return Traced(shape, _DTYPES.get(kind, dtype), work)


def admit_work(work: int, most_work: int, dtype: torch.dtype) -> None:
    """Check work against the limit.

    Raises:
        TooLarge: it is more, or twice as much in float64.
    """
    if (2 * work if dtype is torch.float64 else work) > most_work:
        detail = f"Expected at most {most_work} elements of work (LOSSD_MAX_WORK); got an expression that takes more."
        raise TooLarge(detail, Fault("", "work", detail))


def _result(step: Step, operands: Sequence[_Form], program: Program) -> _Form:
    """Return the shape and kind of the result of a step.

    Raises:
        BadExpression: shapes or kinds do not fit.
    """
    operation = step.operation
    kinds = [operand.kind for operand in operands]
    if step.made:
        sent = [place for place in step.arguments if not program.is_absent(place)]
        made = [place in step.made for place in sent]
        kinds = [NUMBERS if m and kind == INTEGERS else kind for m, kind in zip(made, kinds, strict=True)]
    exponent = program.constant_at(step.arguments[-1]) if operation.name == "**" else None
    if refusal := refused_kinds(operation, kinds, exponent):
        raise BadExpression(refusal, step.column, "type")
    try:
        shape = operation.shape(operation.name, [operand.shape for operand in operands], step.literals)
    except Misfit as misfit:
        raise BadExpression(str(misfit), step.column, "shape") from None
    return _Form(shape, operation.kind([NUMBERS] * len(kinds) if step.floating else kinds))


def _check_size(step: Step, shape: Shape) -> None:
    """Check that torch can count the dimensions and elements of a result.

    Raises:
        BadExpression: there are too many.
    """
    if len(shape) > MOST_DIMS or prod(size or 1 for size in shape) > MOST_ELEMENTS:
        expected = f"at most {MOST_DIMS} dimensions and {MOST_ELEMENTS} elements"
        detail = f"Expected {expected} for {step.operation.name}; got {written([shape[: MOST_DIMS + 1]])}."
        raise BadExpression(detail, step.column, "shape")


def _units(step: Step, operands: Sequence[_Form], result: _Form) -> int:
    """Return the units of a step with its gradient."""
    sizes = [prod(form.shape) for form in (*operands, result)]
    units = STEP_UNITS + round(step.operation.weight * max(sizes))
    if step.operation.name == "@":
        units += sizes[-1] * inner_size(operands[1].shape) // PRODUCTS_PER_UNIT
    elif step.operation.name == "one_hot":
        units += step.literals[0]
    return units
