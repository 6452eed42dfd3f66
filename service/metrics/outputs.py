"""Numbers that are predicted, one or several a sample: their inputs, and finishes that give a value for each output."""

from collections.abc import Callable
from typing import Annotated, Concatenate

import numpy as np
from torch import Tensor

from service.catalogue.metric import Each, Finish, Number, Params, Undefined, Value, Weights
from service.catalogue.spec import Form, Prediction, SizeRange, Target
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, mean_defined

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
INFINITE = "a prediction is infinite, or too large for float64"
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


def mean_of_outputs(name: str = "error", reason: str = INFINITE) -> Finish:
    """Return the finish of the weighted mean of each output; a term that is not finite makes it undefined."""

    def prepare(params: Params, terms: Array) -> Run:
        return mean(terms, reason)

    return by_output(prepare, name)


def mean(terms: Array, reason: str = INFINITE) -> Run:
    """Prepare the weighted mean of terms ``[N]``."""
    valid, (terms,) = finite(terms)

    def run(weights: Weights) -> Number:
        total = float(weights.sum())
        if not total:
            return Undefined(EMPTY)
        return quotient(float((weights * terms).sum()), total) if valid(weights) else Undefined(reason)

    return run


def finite(*columns: Array) -> tuple[Callable[[Weights], bool], list[Array]]:
    """Return whether the rows that count are finite in all columns, as a function of weights, and the columns.

    In these, rows that are not finite are 0, so that a weight of 0 leaves them out.
    """
    bad = np.flatnonzero(~np.logical_and.reduce([np.isfinite(one) for one in columns]))
    cleared = (
        [np.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0) for one in columns] if len(bad) else columns
    )
    return lambda weights: not weights[bad].any(), list(cleared)


def quotient(numerator: float, denominator: float) -> Number:
    """Return a quotient, undefined if it is no finite number in float64."""
    value = numerator / denominator if denominator else np.inf
    return float(value) if np.isfinite(value) else Undefined(RANGE)


def each_output(name: str = "error") -> Each:
    """Return the mean over the outputs of a column as the value of each row."""

    def each(rows: Table, params: Params) -> Array:
        values = rows[name].astype(np.float64)
        return values if values.ndim == 1 else values.mean(1)

    return each
