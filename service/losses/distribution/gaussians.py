"""Losses between Gaussians that are given by their means and variances."""

from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.digits import excess, sloped


@loss(title="KL divergence of Gaussians", tasks=("distribution",), range=(0, None))
def gaussian_kl(
    means: Annotated[Tensor, Prediction("... D")],
    log_variances: Annotated[Tensor, Prediction("... D")],
    target_means: Annotated[Tensor, Target("... D")],
    target_log_variances: Annotated[Tensor, Target("... D")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""KL divergence from one Gaussian with a diagonal covariance to another.

    Formula:
        \tfrac{1}{2} \sum_d \ln \frac{v_d}{\hat v_d} + \frac{\hat v_d + (\hat\mu_d - \mu_d)^2}{v_d} - 1

    Args:
        means: Means of the first Gaussian, the predicted one.
        log_variances: Logarithms of its variances.
        target_means: Means of the second Gaussian, such as a prior.
        target_log_variances: Logarithms of its variances.

    Use when:
        Posterior and prior are both learned: hierarchical variational models, latent dynamics.

    Pitfalls:
        Takes log-variances; a log-standard-deviation is half of one. The order matters: the expectation is
        under the first Gaussian, KL(predictions || targets). A tiny target variance makes it explode.

    Sources:
        - Kingma & Welling (2014), Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
    """
    log_ratio, gap = (log_variances - target_log_variances).detach(), (means - target_means).detach()
    # equal means cost nothing, even where the precision overflows: 0 times infinity would be NaN
    root = (-target_log_variances.detach() / 2).exp().clamp(max=torch.finfo(gap.dtype).max)
    terms = sloped(
        (excess(log_ratio) + (gap * root).square()) / 2,
        (log_ratio, gap, root),
        (means, lambda log_ratio, gap, root: gap * root * root),
        (log_variances, lambda log_ratio, gap, root: log_ratio.expm1() / 2),
        (target_means, lambda log_ratio, gap, root: -gap * root * root),
        (target_log_variances, lambda log_ratio, gap, root: -(log_ratio.expm1() + (gap * root).square()) / 2),
    )
    return terms.sum(-1)
