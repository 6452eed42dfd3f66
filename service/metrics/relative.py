"""Errors relative to the targets: fractions, never percentages."""

import numpy as np

from service.catalogue.metric import Finish, Number, Params, Undefined, Weights, metric
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
    errors,
    mean,
    quotient,
    scaled,
)

EPSILON = {"sklearn": 2.220446049250313e-16, "torchmetrics": 1.17e-6}
"""The least denominator of peers that never leave a quotient undefined."""

SHARE = "an error is infinite, or its share of its size too large for float64"


def _relative(zero: str) -> Finish:
    """Return the finish of the mean of errors by their sizes, undefined for this reason where a size is 0."""

    def prepare(params: Params, error: Array, size: Array) -> Run:
        least = EPSILON.get(params.get("like") or "", 0.0)
        size = np.maximum(size, least)
        run, unsized = mean(_shares(error, size), SHARE), size == 0

        def checked(weights: Weights) -> Number:
            return Undefined(zero) if weights[unsized].any() else run(weights)

        return checked

    return by_output(prepare, "error", "size")


def _shares(error: Array, size: Array) -> Array:
    """Return errors by sizes; NaN where there is no size."""
    with np.errstate(all="ignore"):
        return error / size


def _each(rows: Table, params: Params) -> Array:
    """Return the mean share of each row; NaN where a size is 0."""
    shares = _shares(rows["error"], np.maximum(rows["size"], EPSILON.get(params.get("like") or "", 0.0)))
    shares = shares if shares.ndim == 1 else shares.mean(1)
    return np.where(np.isfinite(shares), shares, np.nan)


@metric(
    title="Mean absolute percentage error",
    tasks=("regression",),
    aliases=("mean_absolute_percentage_error",),
    finish=_relative("a target is 0, and an error has no size relative to 0"),
    each=_each,
    likes=("sklearn", "torchmetrics"),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def mape(predictions: Estimates, targets: Observations) -> Columns:
    r"""The mean error relative to the target: 0.1 is ten percent.

    Formula:
        \frac{1}{N} \sum_n \frac{|\hat y_n - y_n|}{|y_n|}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape, none of them 0.

    Use when:
        Targets are positive and far from zero, and errors matter in proportion.

    Pitfalls:
        A target of 0 makes it undefined; `wape` is not. scikit-learn and torchmetrics divide by at least 2.2e-16 and
        1.17e-6, so that one such target decides all: `like` does the same. It favours predictions that are too low.

    Sources:
        - Makridakis (1993), Accuracy measures: theoretical and practical concerns,
          https://doi.org/10.1016/0169-2070(93)90079-3
    """
    return {"error": column(errors(predictions, targets).abs()), "size": column(targets.double().abs())}


@metric(
    title="Symmetric mean absolute percentage error",
    tasks=("regression",),
    aliases=("symmetric_mean_absolute_percentage_error",),
    finish=_relative("a target and its prediction are both 0, and their error has no size relative to 0"),
    each=_each,
    likes=("torchmetrics",),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def smape(predictions: Estimates, targets: Observations) -> Columns:
    r"""The mean error relative to the mean size of target and prediction, from 0 to 2.

    Formula:
        \frac{1}{N} \sum_n \frac{2\, |\hat y_n - y_n|}{|\hat y_n| + |y_n|}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Errors matter in proportion, some targets are small, and one is not to decide all.

    Pitfalls:
        Others give half of it, or percent. Where the signs differ it is 2, whatever the prediction. It is undefined
        where a target and its prediction are both 0; with `like` torchmetrics that error is 0.

    Sources:
        - Hyndman & Koehler (2006), Another look at measures of forecast accuracy,
          https://doi.org/10.1016/j.ijforecast.2006.03.001
    """
    size = predictions.double().abs() + targets.double().abs()
    return {"error": column(2 * errors(predictions, targets).abs()), "size": column(size)}


def _total(params: Params, error: Array, size: Array) -> Run:
    """Prepare the quotient of two weighted sums."""
    valid, (error, size) = finite(*scaled(error, size))

    def run(weights: Weights) -> Number:
        if not weights.any():
            return Undefined(EMPTY)
        if not valid(weights):
            return Undefined(LARGE)
        if not size[weights > 0].any():
            return Undefined("all targets are 0, and an error has no size relative to 0")
        return quotient(float((weights * error).sum()), float((weights * size).sum()))

    return run


@metric(
    title="Weighted absolute percentage error",
    tasks=("regression",),
    aliases=("weighted_mape",),
    finish=by_output(_total, "error", "size"),
    each=_each,
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def wape(predictions: Estimates, targets: Observations) -> Columns:
    r"""The sum of the errors relative to the sum of the targets: 0.1 is ten percent.

    Formula:
        \frac{\sum_n |\hat y_n - y_n|}{\sum_n |y_n|}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Some targets are 0, and the total matters: sales of many goods, loads of many hours.

    Pitfalls:
        Large targets decide it. Undefined where all targets are 0. Outputs ``[N, D]`` have a quotient each.

    Sources:
        - Kolassa & Schütz (2007), Advantages of the MAD/Mean ratio over the MAPE, Foresight 6
    """
    return {"error": column(errors(predictions, targets).abs()), "size": column(targets.double().abs())}
