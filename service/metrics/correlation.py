"""Agreement of predictions with targets by their moments: explained variance, and correlation by values."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from service.catalogue.metric import Finish, Number, Params, Undefined, Weights, metric
from service.catalogue.table import Array, Columns
from service.metrics.finishes import finite
from service.metrics.outputs import (
    EMPTY,
    INFINITE,
    OUTPUTS,
    REDRAW_MOMENTS,
    Estimates,
    Observations,
    Run,
    by_output,
    pairs,
    quotient,
    scaled,
)

CONSTANT_TARGETS = "all targets are equal"
CONSTANT_PREDICTIONS = "all predictions are equal"


@dataclass(frozen=True, slots=True)
class Moments:
    """Weighted sums of two variables; ``offset`` is the mean of the first less that of the second."""

    total: float
    offset: float
    first: float
    second: float
    both: float


def moments(first: Array, second: Array, weights: Weights) -> Moments:
    """Return the sums of squares and products about the means."""
    total = float(weights.sum())
    # not the difference of two means, of which little may be left
    offset = float((weights * (first - second)).sum()) / total
    first, second = _centred(first, weights, total), _centred(second, weights, total)
    weighted = weights * first
    return Moments(
        total=total,
        offset=offset,
        first=float((weighted * first).sum()),
        second=float((weights * second * second).sum()),
        both=float((weighted * second).sum()),
    )


def _centred(values: Array, weights: Weights, total: float) -> Array:
    """Return the values less their weighted mean."""
    apart = values - float((weights * values).sum()) / total
    # the mean was rounded
    return apart - float((weights * apart).sum()) / total


def constant(values: Array, weights: Weights) -> bool:
    """Return whether the values that count are all equal."""
    chosen = values[weights > 0]
    return bool((chosen == chosen[0]).all())


def _of_pairs(measure: Callable[[Params, Array, Array, Weights], Number]) -> Finish:
    """Return the finish of a measure of predictions and targets, both finite, of which some count."""

    def prepare(params: Params, predictions: Array, targets: Array) -> Run:
        valid, (predictions, targets) = finite(predictions, targets)

        def run(weights: Weights) -> Number:
            if not weights.any():
                return Undefined(EMPTY)
            return measure(params, predictions, targets, weights) if valid(weights) else Undefined(INFINITE)

        return run

    return by_output(prepare, "prediction", "target")


def _determination(params: Params, predictions: Array, targets: Array, weights: Weights) -> Number:
    """Return one minus the squared errors over the squares of the targets about their mean."""
    if params.get("like") == "sklearn" and np.count_nonzero(weights) == 1:
        return Undefined("there is only one sample")
    [predictions, known] = scaled(predictions, targets)
    errors = known - predictions
    return _explained(params, float((weights * errors * errors).sum()), targets, known, weights)


def _explained(params: Params, unexplained: float, targets: Array, known: Array, weights: Weights) -> Number:
    """Return the share of the squares of the targets, ``known`` in the unit of the errors, that is not unexplained."""
    if constant(targets, weights):
        if params.get("like") == "sklearn":
            return float(unexplained == 0)
        return Undefined(CONSTANT_TARGETS)
    value = quotient(unexplained, moments(known, known, weights).first)
    return value if isinstance(value, Undefined) else 1 - value


@metric(
    title="Coefficient of determination",
    tasks=("regression",),
    aliases=("r2_score", "r_squared"),
    finish=_of_pairs(_determination),
    likes=("sklearn",),
    requires=(OUTPUTS,),
    redraw=REDRAW_MOMENTS,
)
def r2(predictions: Estimates, targets: Observations) -> Columns:
    r"""How much better the predictions are than the mean of the targets: 1 is perfect, 0 no better, below 0 worse.

    Formula:
        1 - \frac{\sum_n (y_n - \hat y_n)^2}{\sum_n (y_n - \bar y)^2}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Models are compared on one set of targets, without a unit.

    Pitfalls:
        It depends on the spread of the targets, so it does not compare between data sets. Undefined where all targets
        are equal; with `like` sklearn it is 1 there if all predictions are right, else 0.

    Sources:
        - scikit-learn, r2_score
    """
    return pairs(predictions, targets)


def _variance(params: Params, predictions: Array, targets: Array, weights: Weights) -> Number:
    """Return one minus the variance of the errors over that of the targets."""
    [predictions, known] = scaled(predictions, targets)
    errors = known - predictions
    unexplained = 0.0 if constant(errors, weights) else moments(errors, errors, weights).first
    return _explained(params, unexplained, targets, known, weights)


@metric(
    title="Explained variance",
    tasks=("regression",),
    aliases=("explained_variance_score",),
    finish=_of_pairs(_variance),
    likes=("sklearn",),
    requires=(OUTPUTS,),
    redraw=REDRAW_MOMENTS,
)
def explained_variance(predictions: Estimates, targets: Observations) -> Columns:
    r"""The share of the targets' variance that the predictions explain, whatever their constant offset.

    Formula:
        1 - \frac{\operatorname{Var}(y - \hat y)}{\operatorname{Var}(y)}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        A constant offset does not matter, or is corrected later.

    Pitfalls:
        Predictions that are all too high by the same score 1: `r2` sees it. Undefined where all targets are equal;
        with `like` sklearn it is 1 there if all errors are equal, else 0.

    Sources:
        - scikit-learn, explained_variance_score
    """
    return pairs(predictions, targets)


def correlation(predictions: Array, targets: Array, weights: Weights) -> Number:
    """Return the weighted correlation of two variables."""
    if constant(targets, weights):
        return Undefined(CONSTANT_TARGETS)
    if constant(predictions, weights):
        return Undefined(CONSTANT_PREDICTIONS)
    [predictions], [targets] = scaled(predictions), scaled(targets)
    sums = moments(predictions, targets, weights)
    value = quotient(sums.both, mean_size(sums.first, sums.second))
    return value if isinstance(value, Undefined) else min(1.0, max(-1.0, value))


def mean_size(first: float, second: float) -> float:
    """Return the geometric mean: exact for equal numbers, and in range for any.

    >>> mean_size(0.1, 0.1), mean_size(2.0**1000, 2.0**1000) == 2.0**1000
    (0.1, True)
    """
    product = first * second
    return sqrt(product) if 1e-280 < product < 1e280 else sqrt(first) * sqrt(second)


@metric(
    title="Pearson correlation",
    tasks=("regression",),
    aliases=("pearson_correlation", "pearsonr"),
    finish=_of_pairs(
        lambda params, predictions, targets, weights: correlation(predictions, targets, weights)
    ),
    requires=(OUTPUTS,),
    redraw=REDRAW_MOMENTS,
)
def pearson(predictions: Estimates, targets: Observations) -> Columns:
    r"""How well a straight line through the targets describes the predictions, from -1 to 1.

    Formula:
        \frac{\sum_n (\hat y_n - \bar{\hat y})(y_n - \bar y)}
        {\sqrt{\sum_n (\hat y_n - \bar{\hat y})^2 \sum_n (y_n - \bar y)^2}}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Only the linear relation matters, not the scale or the offset.

    Pitfalls:
        Predictions that are all wrong by one factor correlate perfectly: `concordance` sees it. Undefined where all
        targets, or all predictions, are equal. Outliers dominate it.

    Sources:
        - scipy, pearsonr
    """
    return pairs(predictions, targets)


def _concordance(params: Params, predictions: Array, targets: Array, weights: Weights) -> Number:
    """Return Lin's concordance."""
    same = constant(targets, weights), constant(predictions, weights)
    if all(same):
        return Undefined("all targets are equal, and all predictions are equal")
    if any(same) and params.get("like") == "torchmetrics":
        return Undefined(CONSTANT_TARGETS if same[0] else CONSTANT_PREDICTIONS)
    [predictions, targets] = scaled(predictions, targets)
    sums = moments(predictions, targets, weights)
    count = sums.total - 1 if params.get("like") == "torchmetrics" else sums.total
    return quotient(2 * sums.both, sums.first + sums.second + count * sums.offset * sums.offset)


@metric(
    title="Concordance correlation",
    tasks=("regression",),
    aliases=("concordance_correlation", "ccc"),
    finish=_of_pairs(_concordance),
    likes=("torchmetrics",),
    requires=(OUTPUTS,),
    redraw=REDRAW_MOMENTS,
)
def concordance(predictions: Estimates, targets: Observations) -> Columns:
    r"""Lin's concordance: correlation that also asks for the right scale and offset, from -1 to 1.

    Formula:
        \frac{2 \sigma_{\hat y y}}{\sigma_{\hat y}^2 + \sigma_y^2 + (\bar{\hat y} - \bar y)^2}

    Args:
        predictions: Estimated values ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.

    Use when:
        Two measurements of the same thing are to agree in value, as ratings by several judges.

    Pitfalls:
        Moments divide by N, as Lin's do; with `like` torchmetrics by N - 1, which gives another value for few samples.
        Undefined where both are constant; with `like` torchmetrics where either is, as it goes by way of the correlation.

    Sources:
        - Lin (1989), A Concordance Correlation Coefficient to Evaluate Reproducibility, https://doi.org/10.2307/2532051
    """
    return pairs(predictions, targets)
