"""Errors relative to the size of the target: percentages and logarithms."""

from typing import Annotated, NamedTuple

import torch
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above
from service.catalogue.spec import Divisor, Prediction, Scales, Target, Unreduced
from service.losses.digits import sloped
from service.losses.regression.magnitudes import norm


class PercentageLoss(NamedTuple):
    """A loss per element and, if zero targets are skipped, 1 where a target counts."""

    loss: Annotated[Tensor, Unreduced("...")]
    divisor: Annotated[Tensor, Divisor("...")] | None


@loss(
    title="Absolute percentage error",
    tasks=("regression",),
    aliases=("mean_absolute_percentage_error",),
    keywords=(
        "percentage error",
        "time series",
        "forecast",
        "demand forecast",
        "relative error",
    ),
    work="predictions",
    range=(0, None),
    scales=Scales(0, along=("epsilon",)),
)
def mape(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
    skip_zeros: bool = False,
) -> PercentageLoss:
    r"""Absolute error in percent of the target.

    Formula:
        100\, \frac{|\hat y - y|}{\max(|y|, \varepsilon)}
        \quad \text{or, with skip\_zeros, } 0 \text{ where } y = 0

    Args:
        predictions: Estimated values.
        targets: Observed values, away from zero or, with `skip_zeros`, exactly zero.
        epsilon: Least size of the denominator, in the unit of the targets; it is a floor, not added.
        skip_zeros: Whether elements whose target is 0 are left out: they cost nothing, and the mean does not
            count them.

    Use when:
        Targets are positive and far from zero, and errors matter in proportion.

    Pitfalls:
        In percent; some libraries give the fraction. A single target near zero dominates all others, and
        `skip_zeros` leaves out exact zeros only. It favours predictions that are too low. Nothing is learnt
        from targets that are skipped: where zeros matter, use `wmape`.

    Sources:
        - Makridakis (1993), Accuracy measures: theoretical and practical concerns,
          https://doi.org/10.1016/0169-2070(93)90079-3
    """
    counted = targets != 0 if skip_zeros else None
    errors = predictions - targets
    if counted is not None:
        errors = torch.where(counted, errors, 0.0)
    percent = 100 * (errors.abs() / targets.abs().clamp(min=epsilon))
    return PercentageLoss(percent, counted if counted is None else counted.to(percent))


@loss(
    title="Symmetric absolute percentage error",
    tasks=("regression",),
    aliases=("symmetric_mape",),
    keywords=(
        "percentage error",
        "time series",
        "forecast",
    ),
    range=(0, 200),
    scales=Scales(0, along=("epsilon",)),
)
def smape(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Absolute error in percent of the mean size of prediction and target, from 0 to 200.

    Formula:
        200\, \frac{|\hat y - y|}{\max(|\hat y| + |y|, \varepsilon)}

    Args:
        predictions: Estimated values.
        targets: Observed values.
        epsilon: Least size of the denominator, in the unit of the targets.

    Use when:
        Errors matter in proportion and some targets are small: the loss stays bounded.

    Pitfalls:
        Ranges to 200; some libraries leave out the 2, and give half of it, or a fraction. Where the signs
        differ it is 200 for any prediction, so nothing is learnt there. 0 where both are 0.

    Sources:
        - Armstrong (1985), Long-Range Forecasting: From Crystal Ball to Computer
        - Hyndman & Koehler (2006), Another look at measures of forecast accuracy,
          https://doi.org/10.1016/j.ijforecast.2006.03.001
    """
    # finite, and so is the sum: an infinite value costs 200 too
    most = torch.finfo(predictions.dtype).max / 4
    predicted, known = (values.detach().clamp(-most, most) for values in (predictions, targets))
    size = predicted.abs() + known.abs()
    return sloped(
        200 * ((predicted - known).abs() / size.clamp(min=epsilon)),
        (predicted, known),
        (predictions, lambda predicted, known: _slope_of_share(predicted, known, epsilon)),
        (targets, lambda predicted, known: _slope_of_share(known, predicted, epsilon)),
    )


def _slope_of_share(value: Tensor, other: Tensor, epsilon: float) -> Tensor:
    """Return the slope of 200 |a - b| / (|a| + |b|): 400 b / (a + b)^2, and 0 where the signs differ."""
    size = value.abs() + other.abs()
    # the derivatives of a - b and of a + b would cancel for far values
    alike = 1 + value.sign() * other.sign()
    slope = torch.where(size < epsilon, 1 / epsilon, alike * (other.abs() / size) / size)
    return 200 * (value - other).sign() * slope


@loss(
    title="Weighted absolute percentage error",
    tasks=("regression",),
    aliases=("wape", "weighted_mape"),
    keywords=(
        "percentage error",
        "time series",
        "forecast",
    ),
    range=(0, None),
    scales=Scales(0, along=("epsilon",)),
)
def wmape(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Summed absolute error in percent of the summed targets: one number, for intermittent demand.

    Formula:
        100\, \frac{\sum_i |\hat y_i - y_i|}{\max\left( \sum_i |y_i|, \varepsilon \right)}

    Args:
        predictions: Estimated values.
        targets: Observed values; single ones may be zero.
        epsilon: Least size of the denominator, in the unit of the targets.

    Use when:
        Many targets are zero, as in demand by day and product, so that percentages of each make no sense.

    Pitfalls:
        One ratio for the whole call: it is not a mean over rows, and the values of two batches cannot be
        averaged.

    Sources:
        - Kolassa & Schütz (2007), Advantages of the MAD/Mean Ratio over the MAPE, Foresight 6
    """
    return 100 * ((predictions - targets).abs().sum() / targets.abs().sum().clamp(min=epsilon))


@loss(
    title="Squared logarithmic error",
    tasks=("regression",),
    aliases=("mean_squared_logarithmic_error",),
    keywords=(
        "skewed targets",
        "price prediction",
        "orders of magnitude",
    ),
    range=(0, None),
)
def msle(
    predictions: Annotated[Tensor, Prediction("...", Above(-1))],
    targets: Annotated[Tensor, Target("...", Above(-1))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared difference of logarithms: proportional errors of targets over orders of magnitude.

    Formula:
        \left( \ln(1 + \hat y) - \ln(1 + y) \right)^2

    Args:
        predictions: Estimated values, greater than -1.
        targets: Observed values, greater than -1.

    Use when:
        Targets such as counts or prices span orders of magnitude, and a factor matters more than a
        difference.

    Pitfalls:
        A prediction that is too low costs more than one too high by the same amount. Values of -1 and below
        are refused rather than clamped: let the model end in a softplus or an exponential.

    Sources:
        - Pedregosa et al. (2011), Scikit-learn: Machine Learning in Python, https://arxiv.org/abs/1201.0490
    """
    ratios = _log_ratios(predictions.detach(), targets.detach())
    return sloped(
        ratios.square(),
        (ratios, predictions, targets),
        (predictions, lambda ratios, predicted, known: 2 * ratios / (1 + predicted)),
        (targets, lambda ratios, predicted, known: -2 * ratios / (1 + known)),
    )


@loss(
    title="Root mean squared logarithmic error",
    tasks=("regression",),
    keywords=(
        "skewed targets",
        "price prediction",
        "orders of magnitude",
    ),
    range=(0, None),
)
def rmsle(
    predictions: Annotated[Tensor, Prediction("...", Above(-1))],
    targets: Annotated[Tensor, Target("...", Above(-1))],
) -> Annotated[Tensor, Unreduced("")]:
    r"""Root of the mean squared difference of logarithms: one number, a typical factor of error.

    Formula:
        \sqrt{\frac{1}{n} \sum_i \left( \ln(1 + \hat y_i) - \ln(1 + y_i) \right)^2}

    Args:
        predictions: Estimated values, greater than -1.
        targets: Observed values, greater than -1.

    Use when:
        Errors of proportion are to be reported in one number, as in forecasts of demand.

    Pitfalls:
        The values of two batches cannot be averaged: average `msle`, then take the root. The gradient is
        defined as 0 at a perfect fit, where the derivative does not exist.

    Sources:
        - Kaggle (2014), Bike Sharing Demand: Evaluation, https://www.kaggle.com/c/bike-sharing-demand
    """
    ratios = _log_ratios(predictions.detach(), targets.detach())
    size, count = norm(ratios), predictions.numel()
    return sloped(
        size / count**0.5,
        (ratios / torch.where(size == 0, 1.0, size), predictions, targets),
        (predictions, lambda shares, predicted, known: shares / (1 + predicted) / count**0.5),
        (targets, lambda shares, predicted, known: -shares / (1 + known) / count**0.5),
    )


def _log_ratios(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return how many factors of e a prediction, plus one, is above its target plus one; without slopes."""
    gap = predictions - targets
    # of the two ratios the one above 1, made of the gap: near 1, logarithms would cancel
    side = torch.where(gap < 0, -1.0, 1.0)
    return side * torch.log1p(side * gap / (1 + torch.minimum(predictions, targets)))
