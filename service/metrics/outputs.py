"""Numbers that are predicted, one or several a sample: their inputs, and finishes that give a value for each output."""

from collections.abc import Callable
from math import frexp, isfinite
from typing import Annotated, Concatenate

import numpy as np
from torch import Tensor

from service.catalogue.metric import Each, Finish, Number, Params, Undefined, Value, Weights
from service.catalogue.spec import Form, Prediction, SizeRange, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, finite, mean_defined

Estimates = Annotated[Tensor, Prediction((Form("N"), Form("N D")))]
Observations = Annotated[Tensor, Target((Form("N"), Form("N D")))]
OUTPUTS = SizeRange("D", 1, 4096)
REDRAW = ("N/4", "N D/4", "100 D")
"""The work of one weighted sum of each output."""
REDRAW_MOMENTS = ("N", "N D", "200 D")
"""The work of sums of squares and products about the means."""
Run = Callable[[Weights], Number]
Prepare = Callable[Concatenate[Params, ...], Run]
"""Prepares columns ``[N]`` of one output, and returns a function from weights to its value."""

EMPTY = "there are no samples"
INFINITE = "a prediction is infinite"
LARGE = "an error is infinite, or too large for float64"
RANGE = "the numbers are too large or too small for float64"


def errors(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return predictions less targets, in float64."""
    return predictions.double() - targets.double()


def pairs(predictions: Tensor, targets: Tensor) -> Columns:
    """Return predictions and targets as columns, in float64."""
    return {"prediction": column(predictions.double()), "target": column(targets.double())}


def by_output(prepare: Prepare, *names: str) -> Finish:
    """Return the finish of columns ``[N]`` as a number, of columns ``[N, D]`` as ``{"mean", "per_output"}``."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        columns = [rows[name].astype(np.float64) for name in names]
        single = columns[0].ndim == 1
        outputs = [columns] if single else zip(*(np.ascontiguousarray(one.T) for one in columns), strict=True)
        runs = [prepare(params, *output) for output in outputs]

        def run(weights: Weights) -> Value:
            # too large a sum is infinite, which becomes undefined
            with np.errstate(all="ignore"):
                values = [one(weights) for one in runs]
            mean_value = mean_defined(values, "no output has a value")
            return values[0] if single else {"mean": mean_value, "per_output": values}

        return run

    return finish


def mean_of_outputs(name: str = "error", reason: str = LARGE) -> Finish:
    """Return the finish of the weighted mean of each output; a term that is not finite makes it undefined."""

    def prepare(params: Params, terms: Array) -> Run:
        return mean(terms, reason)

    return by_output(prepare, name)


def mean(terms: Array, reason: str = LARGE) -> Run:
    """Prepare the weighted mean of terms ``[N]``."""
    valid, (terms,) = finite(terms)

    def run(weights: Weights) -> Number:
        total = float(weights.sum())
        if not total:
            return Undefined(EMPTY)
        if not valid(weights):
            return Undefined(reason)
        value = float((weights * terms).sum()) / total
        # a mean of large terms is in range where their sum is not
        return value if isfinite(value) else times((weights * np.ldexp(terms, -300)).sum() / total, 300)

    return run


def exponent_of(*columns: Array) -> int:
    """Return the power of two that brings the largest finite number of columns near 1; 0 if squares are in range as it is."""
    exponent = -frexp(max(map(_largest, columns)))[1]
    return exponent if abs(exponent) > 400 else 0


def _largest(values: Array) -> float:
    """Return the largest size of the finite ones of values."""
    size = float(max(values.max(initial=0.0), -values.min(initial=0.0)))
    return size if isfinite(size) else _largest(values[np.isfinite(values)])


def scaled(*columns: Array) -> list[Array]:
    """Return columns multiplied by one power of two, so that sums and squares neither overflow nor vanish, and stay exact."""
    exponent = exponent_of(*columns)
    return [np.ldexp(one, exponent) if exponent else one for one in columns]


def quotient(numerator: float, denominator: float) -> Number:
    """Return a quotient, undefined if it is no finite number in float64."""
    return times(numerator / denominator if denominator else np.inf)


def times(value: float, exponent: int = 0) -> Number:
    """Return a number times a power of two, undefined if it is no finite number in float64."""
    with np.errstate(all="ignore"):
        number = float(np.ldexp(value, exponent))
    return number if isfinite(number) else Undefined(RANGE)


def each_output(name: str = "error") -> Each:
    """Return the mean over the outputs of a column as the value of each row."""

    def each(rows: Table, params: Params) -> Array:
        values = rows[name].astype(np.float64)
        return values if values.ndim == 1 else values.mean(1)

    return each
