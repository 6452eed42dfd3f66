"""Losses of counts and of positive amounts, whose spread grows with their mean."""

from math import log, pi
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above, AtLeast, Real
from service.catalogue.spec import Condition, Form, Prediction, Scales, Target, Unreduced, When, given
from service.losses.digits import excess, log_ratio, sloped
from service.losses.regression.gammas import digamma_error, stirling_error


@loss(
    title="Poisson negative log-likelihood",
    tasks=("regression",),
    aliases=("poisson",),
    keywords=(
        "count data",
        "counts",
        "Poisson regression",
    ),
    work="predictions",
)
def poisson_nll(
    predictions: Annotated[
        Tensor,
        Prediction(
            [Form("...", when=given(log_input=True)), Form("...", AtLeast(0), when=given(log_input=False))]
        ),
    ],
    targets: Annotated[Tensor, Target("...", AtLeast(0))],
    *,
    log_input: bool = True,
    full: bool = False,
    eps: Annotated[float, Gt(0)] = 1e-8,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-likelihood of counts that happen at a predicted rate.

    Formula:
        e^{\hat y} - y \hat y \quad \text{or, of rates,} \quad \hat y - y \ln(\hat y + \varepsilon),
        \qquad \left[ + y \ln y - y + \tfrac{1}{2} \ln 2\pi y \text{ where } y > 1 \right]

    Args:
        predictions: Logarithms of the estimated rates; the rates themselves if `log_input` is false.
        targets: Observed counts.
        log_input: Whether predictions are logarithms.
        full: Whether to add Stirling's approximation of the constant ln(y!), for targets above 1.
        eps: Added to a rate before its logarithm is taken, in the unit of the counts; unused with `log_input`.

    Use when:
        Targets count events, and their variance is about their mean.

    Pitfalls:
        Takes log-rates by default: a model that ends in a softplus or an exponential needs `log_input` false.
        Counts that vary more than their mean call for `negative_binomial_nll`, and units that have no events at
        all for `zero_inflated_poisson_nll`. Without `full` it may be negative.

    Sources:
        - Cameron & Trivedi (2013), Regression Analysis of Count Data, https://doi.org/10.1017/CBO9781139013567
    """
    if log_input:
        rate = predictions.detach().exp()
        # without counts nothing is lost, however small the rate
        counted = (targets * predictions).nan_to_num(0.0, torch.inf, -torch.inf)
        loss = sloped(
            rate - counted,
            (rate, predictions, targets),
            (predictions, lambda rate, predictions, targets: rate - targets),
            (targets, lambda rate, predictions, targets: -predictions),
        )
    else:
        loss = predictions - targets * (predictions + eps).log()
    if not full:
        return loss
    several = targets > 1
    counts = torch.where(several, targets, 1.0)
    stirling = counts * counts.log() - counts + (2 * pi * counts).log() / 2
    return loss + torch.where(several, stirling, 0.0)


@loss(
    title="Negative binomial negative log-likelihood",
    tasks=("regression",),
    aliases=("nb",),
    keywords=(
        "count data",
        "counts",
        "overdispersion",
        "demand forecast",
    ),
    work="5 predictions",
    twice="8 predictions",
    range=(0, None),
)
def negative_binomial_nll(
    predictions: Annotated[Tensor, Prediction("...", Above(0))],
    dispersions: Annotated[Tensor, Prediction("...", Above(0))],
    targets: Annotated[Tensor, Target("...", AtLeast(0))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-likelihood of counts that vary more than Poisson's: demand, gene expression.

    Formula:
        -\ln \frac{\Gamma(y + \theta)}{\Gamma(y + 1)\, \Gamma(\theta)}
        - \theta \ln \frac{\theta}{\theta + \hat y} - y \ln \frac{\hat y}{\theta + \hat y}

    Args:
        predictions: Estimated means.
        dispersions: Estimated \theta: the variance is \hat y + \hat y^2 / \theta, so large values are
            Poisson's.
        targets: Observed counts.

    Use when:
        Counts are over-dispersed: their variance exceeds their mean.

    Pitfalls:
        `dispersions` is the inverse of what some texts call dispersion. Libraries that take `total_count` and
        `logits` mean \theta and \ln \hat y - \ln \theta.

    Sources:
        - Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics,
          https://doi.org/10.1038/s41592-018-0229-2
        - Salinas et al. (2017), DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks,
          https://arxiv.org/abs/1704.04110
    """
    # in float64: the likelihood of small counts is a small difference of logarithms of gammas
    mean, shape, count = (tensor.detach().double() for tensor in (predictions, dispersions, targets))
    both = mean + shape
    # gammas of 1 + z, which have no pole at 0, in Stirling's formula. Its leading terms and the likelihood's
    # make logarithms of ratios that are near 1 for large counts, which do not cancel then
    a, b, c = 1 + shape, 1 + count, 1 + count + shape
    of_shape = _log_of_ratio(a * both, c * shape, mean + shape * (mean - count))
    of_count = _log_of_ratio(b * both, c * mean, shape * (b - mean))
    roots = (torch.log1p(count) - torch.log1p(count / a) + log(2 * pi)) / 2 - 1
    remainders = stirling_error(a) + stirling_error(b) - stirling_error(c)
    # of no count nothing of the gammas is left but rounding, which is not to outweigh a tiny dispersion
    gammas = count.sign() * (torch.log1p(count / shape) + roots + remainders)
    value = shape * of_shape + count * of_count + gammas
    return sloped(
        value.to(predictions.dtype),
        (mean, shape, count, of_shape, of_count),
        (predictions, lambda mean, shape, count, x, y: (mean - count) / mean * (shape / (mean + shape))),
        (dispersions, lambda mean, shape, count, x, y: _slope_by_dispersion(mean, shape, count, x)),
        (targets, lambda mean, shape, count, x, y: _slope_by_count(shape, count, y)),
    )


def _slope_by_dispersion(mean: Tensor, shape: Tensor, count: Tensor, of_shape: Tensor) -> Tensor:
    total = count + shape
    digammas = digamma_error(1 + shape) - digamma_error(1 + total) - count / shape / total
    return of_shape + digammas + (count - mean) / (mean + shape)


def _slope_by_count(shape: Tensor, count: Tensor, of_count: Tensor) -> Tensor:
    total = count + shape
    return of_count + digamma_error(1 + count) - digamma_error(1 + total) + 1 / total


def _log_of_ratio(numerator: Tensor, denominator: Tensor, difference: Tensor) -> Tensor:
    """Return the logarithm of a ratio, made of the difference, whose digits the ratio lost near 1."""
    size = torch.log1p(difference.abs() / torch.minimum(numerator, denominator))
    return torch.copysign(size, difference)


_ZERO = When("power is 0", lambda params: params["power"] == 0)
_BELOW_TWO = When("power is below 2", lambda params: 0 < params["power"] < 2)
_FROM_TWO = When("power is at least 2", lambda params: params["power"] >= 2)


@loss(
    title="Tweedie deviance",
    tasks=("regression",),
    aliases=("tweedie",),
    keywords=(
        "insurance claims",
        "zero-inflated",
        "rainfall",
    ),
    requires=(
        Condition(
            "/params/power",
            "0, or a number of at least 1",
            lambda facts: facts.params["power"],
            lambda facts: facts.params["power"] == 0 or facts.params["power"] >= 1,
        ),
    ),
    work="predictions",
    range=(0, None),
    scales=Scales(0.5, params={"power": 1.5}),
)
def tweedie_deviance(
    predictions: Annotated[
        Tensor,
        Prediction(
            [
                Form("...", Above(0), when=_BELOW_TWO),
                Form("...", Above(0), when=_FROM_TWO),
                Form("...", Real(), when=_ZERO),
            ]
        ),
    ],
    targets: Annotated[
        Tensor,
        Target(
            [
                Form("...", AtLeast(0), when=_BELOW_TWO),
                Form("...", Above(0), when=_FROM_TWO),
                Form("...", Real(), when=_ZERO),
            ]
        ),
    ],
    *,
    power: Annotated[float, Ge(0)] = 1.5,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Deviance of amounts with many exact zeros, as insurance claims and rainfall have them.

    Formula:
        2 \left( \frac{y^{2-k}}{(1-k)(2-k)} - \frac{y\, \hat y^{1-k}}{1-k} + \frac{\hat y^{2-k}}{2-k} \right),
        \quad \text{at } k = 1:\ 2 \left( y \ln \frac{y}{\hat y} - y + \hat y \right),
        \quad k = 2:\ 2 \left( \ln \frac{\hat y}{y} + \frac{y}{\hat y} - 1 \right)

    Args:
        predictions: Estimated means, positive unless `power` is 0.
        targets: Observed amounts: at least 0 below power 2, positive from 2 on, any number at power 0.
        power: Exponent k with which the variance grows with the mean: 0 is the squared error, 1 Poisson's, 2
            the gamma, 3 the inverse Gaussian deviance; between 1 and 2 amounts with exact zeros.

    Use when:
        Targets are positive amounts with a mass at zero (1 < power < 2), or positive with a constant relative
        spread (power 2).

    Pitfalls:
        A deviance, not a log-likelihood: 0 at a perfect fit, so `power` cannot be chosen by it. Predictions
        must be positive: end the model in an exponential or softplus.

    Sources:
        - Jørgensen (1987), Exponential Dispersion Models, https://doi.org/10.1111/j.2517-6161.1987.tb01685.x
    """
    if power == 0:
        return (predictions - targets).square()
    mean, amount = predictions.detach(), targets.detach()
    zero = amount == 0
    gap = (mean - amount) / mean
    ratio = log_ratio(torch.where(zero, mean, amount), mean, amount - mean)
    # twice, the root of the power: it overflows later than the power does
    root = mean ** (1 - power / 2)
    first, second = _power_integral(ratio, 1 - power), _power_integral(ratio, 2 - power)
    # twice the integral of (y - u) / u^k from the prediction to the target
    near = ratio.abs() < 1
    deviance = torch.where(
        near,
        root * _near_deviance(ratio, gap, power),
        root / mean * amount * first - root * second,
    )
    if power < 2:
        deviance = torch.where(zero, root / (2 - power), deviance)
    return sloped(
        2 * root * deviance,
        (root, gap, mean, first),
        (predictions, lambda root, gap, mean, first: 2 * root * gap * root / mean),
        (targets, lambda root, gap, mean, first: 2 * root * first * root / mean),
    )


def _power_integral(log_end: Tensor, exponent: float) -> Tensor:
    """Return the integral of u^(exponent - 1) from 1 to e^log_end; at exponent 0 it is the logarithm."""
    return log_end if abs(exponent) < 1e-20 else torch.expm1(exponent * log_end) / exponent


def _near_deviance(ratio: Tensor, gap: Tensor, power: float) -> Tensor:
    """Return the same integral from 1 to 1 - gap without the leading term of both, the ratio, which cancels near 1."""
    bends = (1 - gap) * _power_bend(ratio, 1 - power) - _power_bend(ratio, 2 - power)
    return bends - gap * ratio


def _power_bend(log_end: Tensor, exponent: float) -> Tensor:
    """Return by how much that integral exceeds the logarithm."""
    if abs(exponent) < 1e-20:
        return torch.zeros_like(log_end)
    return excess(exponent * log_end) / exponent
