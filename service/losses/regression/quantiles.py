"""Asymmetric errors, whose best constant prediction is a quantile or an expectile."""

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import Inside
from service.catalogue.spec import Prediction, Target, Unreduced, Values


@loss(
    title="Quantile (pinball)",
    tasks=("regression",),
    aliases=("pinball",),
    keywords=(
        "pinball",
        "quantile regression",
        "prediction intervals",
        "uncertainty",
        "probabilistic forecast",
        "time series",
    ),
    range=(0, None),
    scales=1,
)
def quantile(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    quantile: Annotated[float, Gt(0), Lt(1)] = 0.5,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Pinball error: the prediction learns a quantile of the target, such as a 90 % upper bound.

    Formula:
        \max(q e,\ (q - 1) e), \quad e = y - \hat y

    Args:
        predictions: Estimated quantile.
        targets: Observed values.
        quantile: Which quantile q to estimate: a prediction that is too low costs q, one too high 1 - q.

    Use when:
        You need a bound or an interval, or under- and over-prediction have different prices.

    Pitfalls:
        Mind the sign: at 0.9 it is under-prediction that is dear. At 0.5 it is half the absolute error.
        Quantiles trained apart may cross. The gradient is 0 where the error is exactly 0.

    Sources:
        - Koenker & Bassett (1978), Regression Quantiles, https://doi.org/10.2307/1913643
    """
    errors = targets - predictions
    return quantile * torch.relu(errors) + (1 - quantile) * torch.relu(-errors)


@loss(
    title="Several quantiles",
    tasks=("regression",),
    aliases=("multi_pinball",),
    keywords=(
        "pinball",
        "quantile regression",
        "prediction intervals",
        "uncertainty",
        "probabilistic forecast",
        "time series",
    ),
    range=(0, None),
    scales=1,
)
def multi_quantile(
    predictions: Annotated[Tensor, Prediction("... Q")],
    targets: Annotated[Tensor, Target("...")],
    *,
    quantiles: Annotated[tuple[float, ...], Values("Q", Inside(0, 1))] = (0.1, 0.5, 0.9),
) -> Annotated[Tensor, Unreduced("... Q")]:
    r"""Pinball error of several quantiles at once: a prediction interval with its median.

    Formula:
        \max(q_k e_k,\ (q_k - 1) e_k), \quad e_k = y - \hat y_k

    Args:
        predictions: Estimated quantiles, one after the other along the last axis.
        targets: Observed values, without that axis.
        quantiles: Which quantile each entry of the last axis estimates.

    Use when:
        One model gives an interval or a coarse distribution for each target.

    Pitfalls:
        Nothing prevents the quantiles from crossing: sort them after prediction, or predict increments. The
        mean divides by the number of quantiles too.

    Sources:
        - Koenker & Bassett (1978), Regression Quantiles, https://doi.org/10.2307/1913643
    """
    levels = constant(quantiles, predictions)
    errors = targets[..., None] - predictions
    return levels * torch.relu(errors) + (1 - levels) * torch.relu(-errors)


@loss(title="Expectile", tasks=("regression",), aliases=("asymmetric_squared",), range=(0, None), scales=2)
def expectile(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    expectile: Annotated[float, Gt(0), Lt(1)] = 0.5,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared error with two prices: the smooth cousin of the quantile, used in implicit Q-learning.

    Formula:
        \begin{cases} q e^2 & e \ge 0 \\ (1 - q) e^2 & e < 0 \end{cases}, \quad e = y - \hat y

    Args:
        predictions: Estimated expectile.
        targets: Observed values.
        expectile: Price q of a prediction that is too low; one too high has 1 - q.

    Use when:
        Under- and over-prediction differ in price and a smooth loss is wanted.

    Pitfalls:
        An expectile is not a quantile: at 0.9 it does not lie above 90 % of the targets. At 0.5 it is half of
        `mse`.

    Sources:
        - Newey & Powell (1987), Asymmetric Least Squares Estimation and Testing,
          https://doi.org/10.2307/1911031
        - Kostrikov et al. (2021), Offline Reinforcement Learning with Implicit Q-Learning,
          https://arxiv.org/abs/2110.06169
    """
    errors = targets - predictions
    squared = errors.square()
    return torch.where(errors < 0, (1 - expectile) * squared, expectile * squared)
