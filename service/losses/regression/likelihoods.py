"""Negative log-likelihoods of continuous targets: the model predicts a distribution, not a number."""

from math import lgamma, log, pi, sqrt, ulp
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above, AtLeast
from service.catalogue.spec import Form, Prediction, Target, Unreduced
from service.losses.digits import sloped
from service.losses.regression.magnitudes import largest_shape, log1p_square, wide_norm


@loss(
    title="Gaussian negative log-likelihood",
    tasks=("regression",),
    aliases=("normal_nll",),
    keywords=(
        "heteroscedastic regression",
        "aleatoric uncertainty",
        "probabilistic forecast",
        "variance",
    ),
    exact_gradient=False,
)
def gaussian_nll(
    predictions: Annotated[Tensor, Prediction([Form("..."), Form("... D")])],
    targets: Annotated[Tensor, Target([Form("..."), Form("... D")])],
    variances: Annotated[Tensor, Prediction([Form("...", AtLeast(0)), Form("... 1", AtLeast(0))])],
    *,
    full: bool = False,
    eps: Annotated[float, Gt(0)] = 1e-6,
) -> Annotated[Tensor, Unreduced([Form("... D"), Form("...")])]:
    r"""Squared error weighed by a predicted variance: regression that knows how uncertain it is.

    Formula:
        \tfrac{1}{2} \left( \ln v + \frac{(\hat y - y)^2}{v} \right) + \left[ \tfrac{1}{2} \ln 2\pi \right],
        \quad v = \max(\sigma^2, \varepsilon)

    Args:
        predictions: Estimated means.
        targets: Observed values.
        variances: Estimated variances: one for each mean, or one for each row along the last axis.
        full: Whether to add the constant, so that the value is a true log-likelihood.
        eps: Least variance that is reckoned with, in squared units of the targets.

    Use when:
        The noise differs from sample to sample and the model is to predict it along with the mean.

    Pitfalls:
        Takes variances, neither standard deviations nor their logarithms. Below `eps` the variance counts as
        `eps`, and its gradient is passed through unchanged so that it can recover: it is not 0 there.

    Sources:
        - Nix & Weigend (1994), Estimating the mean and variance of the target probability distribution,
          https://doi.org/10.1109/ICNN.1994.374138
    """
    residuals = predictions - targets
    # v - v is 0 with a gradient of 1
    floored = torch.where(variances < eps, variances - variances.detach() + eps, variances)
    loss = (floored.log() + residuals * (residuals / floored)) / 2
    return loss + log(2 * pi) / 2 if full else loss


@loss(
    title="Laplace negative log-likelihood",
    tasks=("regression",),
    keywords=(
        "heteroscedastic regression",
        "uncertainty",
    ),
)
def laplace_nll(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    scales: Annotated[Tensor, Prediction("...", Above(0))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Absolute error weighed by a predicted scale: robust regression that knows its uncertainty.

    Formula:
        \ln 2b + \frac{|\hat y - y|}{b}

    Args:
        predictions: Estimated medians.
        targets: Observed values.
        scales: Estimated mean absolute deviations b.

    Use when:
        The noise differs from sample to sample and has heavier tails than a Gaussian.

    Pitfalls:
        A scale near zero makes the loss fall without bound where the fit is perfect: keep it away from zero.
        The constant is included, which `gaussian_nll` leaves out by default.

    Sources:
        - Kendall & Gal (2017), What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?,
          https://arxiv.org/abs/1703.04977
    """
    return scales.log() + log(2) + (predictions - targets).abs() / scales


@loss(title="Student-t negative log-likelihood", tasks=("regression",))
def student_t_nll(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    scales: Annotated[Tensor, Prediction("...", Above(0))],
    *,
    df: Annotated[float, Gt(0)] = 4.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-likelihood with heavy tails: outliers are expected, and the scale is learnt.

    Formula:
        \ln \frac{\Gamma(\nu / 2)}{\Gamma((\nu + 1) / 2)} + \tfrac{1}{2} \ln \nu\pi + \ln s
        + \frac{\nu + 1}{2} \ln\left( 1 + \frac{1}{\nu} \left( \frac{\hat y - y}{s} \right)^2 \right)

    Args:
        predictions: Estimated centres.
        targets: Observed values.
        scales: Estimated scales s; the standard deviation is larger by the root of \nu / (\nu - 2).
        df: Degrees of freedom \nu: 1 is a Cauchy distribution, many are a Gaussian.

    Use when:
        Noise is heavy-tailed and its scale is to be learnt with the centre.

    Pitfalls:
        The scale is not a standard deviation. Not convex: far points hardly pull. The constants are included,
        which `gaussian_nll` leaves out by default.

    Sources:
        - Lange et al. (1989), Robust Statistical Modeling Using the t Distribution,
          https://doi.org/10.1080/01621459.1989.10478852
    """
    df = min(df, largest_shape(scales))
    tail = (df + 1) / 2 * log1p_square((predictions - targets) / scales / sqrt(df))
    return _student_normaliser(df) + scales.log() + tail


def _student_normaliser(df: float) -> float:
    """Return the logarithm of the integral of (1 + x^2 / df)^(-(df + 1) / 2)."""
    # the least number there is, halved, would be zero
    half = max(df / 2, ulp(0.0))
    if half < 50:
        return lgamma(half) - lgamma(half + 0.5) + log(df * pi) / 2
    # the two gammas cancel more digits the larger they are: their ratio has a series
    return log(2 * pi) / 2 + 1 / (8 * half) - half**-3 / 192 + half**-5 / 640


@loss(
    title="Mixture density negative log-likelihood",
    tasks=("regression",),
    aliases=("mdn",),
    keywords=(
        "mixture density network",
        "MDN",
        "multimodal targets",
    ),
)
def mixture_gaussian_nll(
    logits: Annotated[Tensor, Prediction("N K")],
    means: Annotated[Tensor, Prediction("N K D")],
    scales: Annotated[Tensor, Prediction("N K D", Above(0))],
    targets: Annotated[Tensor, Target("N D")],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Negative log-likelihood of a mixture of Gaussians: regression with several plausible answers.

    Formula:
        -\ln \sum_k \operatorname{softmax}(z)_k \prod_d \mathcal{N}(y_d;\ \mu_{kd}, \sigma_{kd}^2)

    Args:
        logits: Unnormalised log-weights of the components.
        means: Estimated mean of each component in each dimension.
        scales: Estimated standard deviation of each component in each dimension.
        targets: Observed vectors.

    Use when:
        The same input has several right answers, whose mean is none of them, as in inverse problems.

    Pitfalls:
        Takes standard deviations, not variances. One component that shrinks onto one target sends the loss to
        minus infinity: keep the scales away from zero. Components may collapse into one.

    Sources:
        - Bishop (1994), Mixture Density Networks, https://publications.aston.ac.uk/id/eprint/373/
    """
    z = ((targets[:, None] - means) / scales).detach()
    # finite, so that a component without a share takes 0 times it
    z = z.clamp(-torch.finfo(z.dtype).max, torch.finfo(z.dtype).max)
    squares = wide_norm(z)[..., 0].square()
    spreads = scales.detach().log().sum(-1, dtype=torch.float64) + z.shape[-1] * log(2 * pi) / 2
    log_weights = logits.detach().double().log_softmax(-1)
    joint = log_weights - squares / 2 - spreads
    likelihood = joint.logsumexp(-1, keepdim=True)
    posterior = (joint - likelihood).exp()
    return sloped(
        -likelihood[:, 0].to(z.dtype),
        (z, scales, posterior.to(z.dtype)[..., None], log_weights.exp() - posterior),
        (logits, lambda z, scales, share, surplus: surplus),
        (means, lambda z, scales, share, surplus: -share * z / scales),
        (scales, lambda z, scales, share, surplus: (share - share * z * z) / scales),
        (targets, lambda z, scales, share, surplus: (share * z / scales).sum(-2)),
    )
