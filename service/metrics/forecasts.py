"""Forecasts with their uncertainty: a quantile, or an ensemble of possible outcomes."""

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.metric import metric
from service.catalogue.spec import Prediction, SizeRange, Target
from service.catalogue.table import Columns
from service.metrics.finishes import column
from service.metrics.outputs import (
    OUTPUTS,
    REDRAW,
    Estimates,
    Observations,
    each_output,
    errors,
    mean_of_outputs,
)


@metric(
    title="Pinball score",
    tasks=("regression",),
    aliases=("quantile_score", "mean_pinball"),
    finish=mean_of_outputs(),
    each=each_output(),
    signed=("quantile",),
    requires=(OUTPUTS,),
    redraw=REDRAW,
    higher_is_better=False,
)
def pinball(
    predictions: Estimates, targets: Observations, *, quantile: Annotated[float, Gt(0), Lt(1)] = 0.5
) -> Columns:
    r"""The error of a predicted quantile: targets above it cost its level, those below the rest.

    Formula:
        \frac{1}{N} \sum_n \max\bigl(\tau\,(y_n - \hat y_n),\; (\tau - 1)(y_n - \hat y_n)\bigr)

    Args:
        predictions: Predicted quantiles ``[N]``, or ``[N, D]`` with D outputs.
        targets: Observed values of the same shape.
        quantile: The level of the quantile, the same for all outputs.

    Use when:
        A forecast is to be exceeded with a given probability: stock for nine days of ten.

    Pitfalls:
        At the level 0.5 it is half of the mean absolute error. Compare scores of one level only.

    Sources:
        - Koenker & Bassett (1978), Regression Quantiles, https://doi.org/10.2307/1913643
    """
    above = -errors(predictions, targets)
    return {"error": column(torch.maximum(quantile * above, (quantile - 1) * above))}


@metric(
    title="Continuous ranked probability score",
    tasks=("regression",),
    finish=mean_of_outputs(),
    each=each_output(),
    requires=(SizeRange("M", 1, 1 << 16),),
    higher_is_better=False,
)
def crps(
    predictions: Annotated[Tensor, Prediction("N M")], targets: Annotated[Tensor, Target("N")]
) -> Columns:
    r"""The distance of an ensemble from the outcome, less half the distance between two members; the absolute error of a single one.

    Formula:
        \frac{1}{N} \sum_n \Bigl(\frac{1}{M} \sum_m |x_{nm} - y_n|
        - \frac{1}{2 M^2} \sum_{m, k} |x_{nm} - x_{nk}|\Bigr)

    Args:
        predictions: The members ``[N, M]`` of an ensemble for each sample, in any order.
        targets: The outcomes ``[N]``.

    Use when:
        A forecast is a sample of what may happen, and both its place and its spread are to be right.

    Pitfalls:
        It is the score of the ensemble as it is: small ensembles score worse than the distribution that they come
        from. Undefined where a member is infinite.

    Sources:
        - Gneiting & Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation, equation 21,
          https://doi.org/10.1198/016214506000001437
        - properscoring, crps_ensemble
    """
    apart = (predictions.double() - targets.double()[:, None]).sort(-1).values
    members = apart.shape[1]
    # the sum of all distances is twice the sum of the members by their ranks
    ranks = torch.arange(1 - members, members, 2, dtype=torch.float64, device=apart.device) / members
    return {"error": column(((apart.abs() - apart * ranks) / members).sum(-1).clamp(min=0))}
