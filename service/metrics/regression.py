"""Regression: errors in the unit of the targets, and their squares."""

from math import sqrt

import numpy as np

from service.catalogue.metric import Number, Params, Undefined, Weights, metric
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, finite
from service.metrics.outputs import (
    EMPTY,
    LARGE,
    OUTPUTS,
    REDRAW,
    Estimates,
    Observations,
    Run,
    by_output,
    each_output,
    errors,
    exponent_of,
    mean,
    mean_of_outputs,
    times,
)


@metric(
    title="Mean absolute error",
    tasks=("regression",),
    aliases=("mean_absolute_error",),
    finish=mean_of_outputs(),
    each=each_output(),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def mae(predictions: Estimates, targets: Observations) -> Columns:
    r"""The mean size of the errors, in the unit of the targets.

    Formula:
        \frac{1}{N} \sum_n |\hat y_n - y_n|

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        You want an error that anyone can read, and in which a few outliers do not dominate.

    Pitfalls:
        The best constant prediction is the median, not the mean. Outputs ``[N, D]`` are averaged with equal weight:
        give them one unit first. Undefined without samples, and where a prediction is infinite.

    Sources:
        - scikit-learn, mean_absolute_error
    """
    return {"error": column(errors(predictions, targets).abs())}


@metric(
    title="Mean squared error",
    tasks=("regression",),
    aliases=("mean_squared_error",),
    finish=mean_of_outputs(),
    each=each_output(),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def mse(predictions: Estimates, targets: Observations) -> Columns:
    r"""The mean of the squared errors, in the squared unit of the targets.

    Formula:
        \frac{1}{N} \sum_n (\hat y_n - y_n)^2

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Large errors cost much more than small ones.

    Pitfalls:
        A few outliers dominate. Undefined without samples, and where a square is too large for float64.

    Sources:
        - scikit-learn, mean_squared_error
    """
    return {"error": column(errors(predictions, targets).square())}


def _root(params: Params, sizes: Array) -> Run:
    """Prepare the root of the mean of squares."""
    exponent = exponent_of(sizes)
    prepared = mean(np.square(np.ldexp(sizes, exponent)))

    def run(weights: Weights) -> Number:
        value = prepared(weights)
        return value if isinstance(value, Undefined) else times(sqrt(value), -exponent)

    return run


def _roots(rows: Table, params: Params) -> Array:
    """Return the root of the mean of the squares of each row."""
    sizes = rows["error"].reshape(len(rows), -1)
    _, exponents = np.frexp(sizes.max(1, initial=0.0))
    return np.ldexp(np.sqrt(np.square(np.ldexp(sizes, -exponents[:, None])).mean(1)), exponents)


@metric(
    title="Root mean squared error",
    tasks=("regression",),
    aliases=("root_mean_squared_error",),
    finish=by_output(_root, "error"),
    each=_roots,
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def rmse(predictions: Estimates, targets: Observations) -> Columns:
    r"""The root of the mean squared error, in the unit of the targets.

    Formula:
        \sqrt{\frac{1}{N} \sum_n (\hat y_n - y_n)^2}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Large errors cost more, and the number is to have the unit of the targets.

    Pitfalls:
        The mean over outputs is a mean of roots, as scikit-learn's; torchmetrics takes one root of all. The root of
        the whole is not the mean of the roots of its parts.

    Sources:
        - scikit-learn, root_mean_squared_error
    """
    return {"error": column(errors(predictions, targets).abs())}


def _median(params: Params, values: Array) -> Run:
    """Prepare the weighted median: half the weight is at or below it; between two values, their middle."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def run(weights: Weights) -> Number:
        chosen = weights[order]
        below: Array = np.cumsum(chosen)
        if not len(below) or not below[-1]:
            return Undefined(EMPTY)
        half = float(below[-1]) / 2
        # equal weights such as 0.1 reach the half up to rounding
        lower = int(np.searchsorted(below, half * (1 - 1e-12)))
        upper = int(np.searchsorted(below, half * (1 + 1e-12), side="right"))
        value = ordered[lower] / 2 + ordered[upper] / 2
        return float(value) if np.isfinite(value) else Undefined(LARGE)

    return run


@metric(
    title="Median absolute error",
    tasks=("regression",),
    finish=by_output(_median, "error"),
    each=each_output(),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def median_absolute_error(predictions: Estimates, targets: Observations) -> Columns:
    r"""The error that half of the samples do not exceed, in the unit of the targets.

    Formula:
        \operatorname{median}_n |\hat y_n - y_n|

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        The typical error matters, and outliers do not.

    Pitfalls:
        It does not see the worse half at all. With an even number of samples it is the middle of two errors. With
        weights it is the error up to which lies half of the weight, so a weight of 2 is the same as a sample twice.

    Sources:
        - scikit-learn, median_absolute_error
    """
    return {"error": column(errors(predictions, targets).abs())}


def _largest(params: Params, values: Array) -> Run:
    """Prepare the largest value among the rows that count."""
    valid, (terms,) = finite(values)

    def run(weights: Weights) -> Number:
        chosen = terms[weights > 0]
        if not len(chosen):
            return Undefined(EMPTY)
        return float(chosen.max()) if valid(weights) else Undefined(LARGE)

    return run


@metric(
    title="Largest error",
    tasks=("regression",),
    finish=by_output(_largest, "error"),
    each=each_output(),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def max_error(predictions: Estimates, targets: Observations) -> Columns:
    r"""The largest error, in the unit of the targets.

    Formula:
        \max_n |\hat y_n - y_n|

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        A guarantee is needed: no prediction may be off by more.

    Pitfalls:
        One wrong label decides it, and it grows with the number of samples. Weights only say which samples count. Its
        bootstrap interval never reaches above the value.

    Sources:
        - scikit-learn, max_error
    """
    return {"error": column(errors(predictions, targets).abs())}
