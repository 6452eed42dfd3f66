"""Proper scores of probabilistic forecasts: a whole distribution is compared with the one outcome."""

from math import pi, sqrt
from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above
from service.catalogue.spec import Condition, Prediction, Target, Unreduced
from service.losses.digits import bounded


@loss(
    title="CRPS of a Gaussian",
    tasks=("regression",),
    keywords=(
        "probabilistic forecast",
        "weather",
        "calibration",
        "uncertainty",
    ),
    range=(0, None),
    scales=1,
)
def crps_gaussian(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    scales: Annotated[Tensor, Prediction("...", Above(0))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Continuous ranked probability score of a Gaussian forecast: absolute error for distributions.

    Formula:
        \sigma \left( z \operatorname{erf} \frac{z}{\sqrt 2} + \sqrt{\tfrac{2}{\pi}}\, e^{-z^2 / 2}
        - \tfrac{1}{\sqrt \pi} \right), \quad z = \frac{y - \hat y}{\sigma}

    Args:
        predictions: Estimated means.
        targets: Observed values.
        scales: Estimated standard deviations.

    Use when:
        A forecast with an uncertainty is trained or judged in the unit of the targets, more forgiving of
        outliers than a likelihood.

    Pitfalls:
        Takes standard deviations, not variances. As the scale goes to 0 it becomes the absolute error.

    Sources:
        - Gneiting & Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation,
          https://doi.org/10.1198/016214506000001437
    """
    errors = targets - predictions
    z = errors / scales
    # not scales * z: its gradient for the scales would cancel, and lose all digits at large z
    return errors * torch.erf(z / sqrt(2)) + scales * (
        sqrt(2 / pi) * torch.exp(-z.square() / 2) - 1 / sqrt(pi)
    )


@loss(
    title="CRPS of an ensemble",
    tasks=("regression",),
    keywords=(
        "probabilistic forecast",
        "weather",
        "ensembles",
        "uncertainty",
        "time series",
    ),
    requires=(
        Condition(
            "/params/fair",
            "false for an ensemble of one",
            lambda facts: "true",
            lambda facts: not facts.params["fair"] or facts.size("M") >= 2,
        ),
    ),
    work="3 predictions",
    range=lambda params: (None if params["fair"] else 0, None),
    scales=1,
)
def crps_ensemble(
    predictions: Annotated[Tensor, Prediction("... M")],
    targets: Annotated[Tensor, Target("...")],
    *,
    fair: bool = False,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Continuous ranked probability score of an ensemble: members near the outcome, yet spread.

    Formula:
        \frac{1}{M} \sum_m |x_m - y| - \frac{1}{2 M^2} \sum_{m, n} |x_m - x_n|,
        \quad \text{fair:}\ 2 M (M - 1) \text{ in place of } 2 M^2

    Args:
        predictions: Members of the ensemble along the last axis.
        targets: Observed values, without that axis.
        fair: Whether to divide by the number of distinct pairs, so that small ensembles are not favoured for
            being too narrow. Needs two members.

    Use when:
        A forecast is a sample: weather ensembles, generative models of time series.

    Pitfalls:
        Biased for few members: train with `fair`, which may be negative and lets two members drift apart
        freely around the outcome. Members that coincide do not pull each other.

    Sources:
        - Gneiting & Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation, equation 21,
          https://doi.org/10.1198/016214506000001437
        - Ferro (2014), Fair scores for ensemble forecasts, https://doi.org/10.1002/qj.2270
    """
    members = predictions.shape[-1]
    errors = predictions - targets[..., None]
    pairs = members * (members - fair)
    # shares before sums, which could overflow
    score = (errors.abs() / members - errors * (_ranks(predictions.detach()) / pairs)).sum(-1)
    return score if fair else bounded(score, 0)


def _ranks(values: Tensor) -> Tensor:
    """Return how many more values are smaller than greater than each one, along the last axis.

    The sum of all distances is twice the sum of the values by their ranks, without a table of pairs.
    """
    values = values.contiguous()
    ordered = values.sort(-1).values
    smaller = torch.searchsorted(ordered, values)
    not_greater = torch.searchsorted(ordered, values, right=True)
    return (smaller + not_greater - values.shape[-1]).to(values.dtype)
