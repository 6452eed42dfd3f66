"""Losses of counts with more zeros than their distribution has: some zeros are certain, the others happen."""

from math import log, pi
from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above, AtLeast
from service.catalogue.spec import Form, Prediction, Target, Unreduced, given
from service.losses.digits import excess, sloped
from service.losses.regression.counts import negative_binomial_nll
from service.losses.regression.gammas import digamma_error, stirling_error
from service.losses.surprise import softplus

KEYWORDS = (
    "count data",
    "counts",
    "excess zeros",
    "zero-inflated",
    "intermittent demand",
)


@loss(
    title="Zero-inflated Poisson negative log-likelihood",
    tasks=("regression",),
    aliases=("zip", "zero_inflated_poisson"),
    keywords=(*KEYWORDS, "Poisson regression", "insurance claims"),
    work="5 predictions",
    range=(0, None),
)
def zero_inflated_poisson_nll(
    predictions: Annotated[
        Tensor,
        Prediction(
            [Form("...", when=given(log_input=True)), Form("...", Above(0), when=given(log_input=False))]
        ),
    ],
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", AtLeast(0))],
    *,
    log_input: bool = True,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-likelihood of counts that are zero for certain, or else happen at a predicted rate.

    Formula:
        -\ln\left( \pi\, [y = 0] + (1 - \pi) \frac{\lambda^y e^{-\lambda}}{y!} \right),
        \quad \lambda = e^{\hat y}, \quad \pi = \sigma(z)

    Args:
        predictions: Logarithms of the estimated rates; the rates themselves if `log_input` is false.
        logits: Log-odds z that a count is zero for certain, whatever its rate.
        targets: Observed counts.
        log_input: Whether predictions are logarithms.

    Use when:
        Some units cannot have events at all: customers who do not fish, products that are not on sale.

    Pitfalls:
        The rate is that of units that can have events: the mean is (1 - \pi) \lambda. The constant \ln y! is
        included, so that at logits far below 0 the loss is `poisson_nll` and that constant. Counts that vary
        more than their mean call for `zero_inflated_negative_binomial_nll`; many zeros alone need neither if
        the rates are low.

    Sources:
        - Lambert (1992), Zero-Inflated Poisson Regression, With an Application to Defects in Manufacturing,
          https://doi.org/10.1080/00401706.1992.10485228
    """
    counts = _counts(targets)
    surprise = _poisson(predictions if log_input else predictions.log(), counts)
    return _inflated(surprise, logits, counts)


@loss(
    title="Zero-inflated negative binomial negative log-likelihood",
    tasks=("regression",),
    aliases=("zinb", "zero_inflated_negative_binomial"),
    keywords=(*KEYWORDS, "overdispersion", "gene expression", "single cell"),
    work="6 predictions",
    range=(0, None),
)
def zero_inflated_negative_binomial_nll(
    predictions: Annotated[Tensor, Prediction("...", Above(0))],
    dispersions: Annotated[Tensor, Prediction("...", Above(0))],
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", AtLeast(0))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-likelihood of counts that are zero for certain, or else negative binomial: gene expression.

    Formula:
        -\ln\left( \pi\, [y = 0] + (1 - \pi)\, p(y) \right), \quad \pi = \sigma(z), \quad
        p(y) = \frac{\Gamma(y + \theta)}{\Gamma(y + 1)\, \Gamma(\theta)}
        \left( \frac{\theta}{\theta + \hat y} \right)^{\theta} \left( \frac{\hat y}{\theta + \hat y} \right)^{y}

    Args:
        predictions: Estimated means of the negative binomial part.
        dispersions: Estimated \theta: the variance of that part is \hat y + \hat y^2 / \theta, so large values
            are Poisson's.
        logits: Log-odds z that a count is zero for certain, the dropout of gene expression.
        targets: Observed counts.

    Use when:
        Counts are over-dispersed, and have more zeros than that explains.

    Pitfalls:
        A small \theta makes many zeros too, so that the two parts compete: compare with
        `negative_binomial_nll` before adding logits. The mean is (1 - \pi) \hat y. `dispersions` is the inverse
        of what some texts call dispersion.

    Sources:
        - Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics,
          https://doi.org/10.1038/s41592-018-0229-2
        - Risso et al. (2018), A general and flexible method for signal extraction from single-cell RNA-seq data,
          https://doi.org/10.1038/s41467-017-02554-5
    """
    counts = _counts(targets)
    return _inflated(negative_binomial_nll(predictions, dispersions, counts), logits, counts)


def _counts(targets: Tensor) -> Tensor:
    """Return the targets, zeros among them without a slope: the loss jumps there."""
    return torch.where(targets == 0, 0.0, targets)


def _inflated(surprise: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the surprise of counts, given that in the part that is not zero for certain."""
    zero = targets == 0
    happened = torch.where(zero, 0.0, surprise)
    none = _surprise_of_zero(torch.where(zero, surprise, 0.0), logits)
    return torch.where(zero, none, softplus(logits) + happened)


def _surprise_of_zero(surprise: Tensor, logits: Tensor) -> Tensor:
    """Return -log(p + (1 - p) e^-s), where p is the sigmoid of the logits and s the surprise of a zero that happens."""
    s, z = surprise.detach(), logits.detach()
    # the probability of another count, from which the loss of a likely zero is made
    other = torch.sigmoid(-z) * -torch.expm1(-s)
    likely = other < 0.5
    near = -torch.log1p(-torch.where(likely, other, 0.0))
    value = torch.where(likely, near, softplus(z) - torch.logaddexp(z, -s))
    return sloped(
        value,
        (s, z),
        (surprise, lambda s, z: torch.sigmoid(-z - s)),
        # the difference of the sigmoids of z and of z + s
        (logits, lambda s, z: torch.sigmoid(-z) * torch.sigmoid(z + s) * torch.expm1(-s)),
    )


def _poisson(log_rates: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood of counts, with its constant."""
    # in float64, and by the distance of the rate from 1 + y: the likelihood of large counts is a small difference
    known, count = log_rates.detach().double(), targets.detach().double()
    rate, after = known.exp(), 1 + count
    gap = known - after.log()
    value = after * excess(gap) + known - after.log() / 2 + log(2 * pi) / 2 + stirling_error(after)
    # where zeros are certain nothing of an infinite rate is left, and not 0 * infinity
    slope = torch.where(count == 0, rate.clamp(max=torch.finfo(log_rates.dtype).max), rate)
    return sloped(
        torch.where(count == 0, rate, value.clamp(min=0)).to(log_rates.dtype),
        (known, slope, count),
        (log_rates, lambda known, rate, count: rate - count),
        (targets, lambda known, rate, count: (1 + count).log() + digamma_error(1 + count) - known),
    )
