"""Losses on two views that keep features from collapsing or repeating each other, without negatives."""

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Example, Prediction, SizeRange, Unreduced
from service.losses.metric_learning.pairwise import others

PARTS = ("invariance", "variance", "covariance")
"""The terms of `vicreg`."""


@loss(
    title="VICReg",
    tasks=("metric_learning", "self_supervised"),
    requires=(SizeRange("N", least=2),),
    example=Example(sizes={"N": 5}),
    work="2D D N/512",
    range=lambda params: (0 if min(params[f"{part}_weight"] for part in PARTS) >= 0 else None, None),
)
def vicreg(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    eps: Annotated[float, Gt(0)] = 1e-4,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Views agree, each feature keeps a spread of 1, and features do not covary: no negatives needed.

    Formula:
        \lambda_i \operatorname{mean}(a - p)^2 + \frac{\lambda_v}{2} \big(V(a) + V(p)\big)
        + \lambda_c \big(C(a) + C(p)\big), \quad
        V(z) = \frac1D \sum_d \max\big(0, 1 - \sqrt{\operatorname{var}(z_d) + \varepsilon}\big), \quad
        C(z) = \frac1D \sum_{d \ne e} \operatorname{cov}(z_d, z_e)^2

    Args:
        anchor: Embeddings of the first views.
        positive: Embeddings of the second views, in the same order.
        invariance_weight: Weight of the squared difference of the views.
        variance_weight: Weight of the shortfall of each feature's spread from 1.
        covariance_weight: Weight of the squared covariances.
        eps: Added to variances, which keeps the slope of their root finite.

    Use when:
        Pretraining without labels in small batches, or with encoders that differ for the two views.

    Pitfalls:
        The spread terms of the views are averaged, their covariance terms added. Variances and covariances
        divide by N - 1. Embeddings must not be normalised: a spread of 1 would be out of reach.

    Sources:
        - Bardes et al. (2022), VICReg, https://arxiv.org/abs/2105.04906
    """
    invariance = (anchor - positive).square().mean()
    variance = (_collapse(anchor, eps) + _collapse(positive, eps)) / 2
    covariance = _covariance(anchor) + _covariance(positive)
    return invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance


def _collapse(view: Tensor, eps: float) -> Tensor:
    """Return by how much the features' standard deviations fall short of 1 on average."""
    return F.relu(1 - (view.var(0) + eps).sqrt()).mean()


def _covariance(view: Tensor) -> Tensor:
    """Return the sum of the squared covariances of different features, a feature."""
    centred = view - view.mean(0)
    return _off_diagonal(centred.mT @ centred / (view.shape[0] - 1)) / view.shape[1]


@loss(
    title="Barlow Twins",
    tasks=("metric_learning", "self_supervised"),
    requires=(SizeRange("N", least=2),),
    example=Example(sizes={"N": 5}),
    work="D D N/512",
    range=lambda params: (0 if params["off_diagonal_weight"] >= 0 else None, None),
)
def barlow_twins(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    off_diagonal_weight: float = 0.005,
    eps: Annotated[float, Gt(0)] = 1e-5,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Cross-correlation of two views' features brought to the identity: alike views, no redundancy.

    Formula:
        \sum_d (1 - c_{dd})^2 + w \sum_{d \ne e} c_{de}^2, \quad c = \frac{\tilde a^\top \tilde p}{N}, \quad
        \tilde z = \frac{z - \operatorname{mean} z}{\sqrt{\operatorname{var} z + \varepsilon}}

    Args:
        anchor: Embeddings of the first views.
        positive: Embeddings of the second views, in the same order.
        off_diagonal_weight: Weight of the correlations between different features.
        eps: Added to variances, as in batch normalisation.

    Use when:
        Pretraining without labels with wide embeddings and no negatives.

    Pitfalls:
        Variances are the biased ones of batch normalisation, and the product is divided by N: unbiased ones
        give correlations beside 1 in small batches. The value grows with the number of features.

    Sources:
        - Zbontar et al. (2021), Barlow Twins, https://arxiv.org/abs/2103.03230
    """
    correlation = _standardised(anchor, eps).mT @ _standardised(positive, eps) / anchor.shape[0]
    invariance = (1 - correlation.diagonal()).square().sum()
    return invariance + off_diagonal_weight * _off_diagonal(correlation)


def _standardised(view: Tensor, eps: float) -> Tensor:
    """Shift and scale each feature to mean 0 and variance 1."""
    return (view - view.mean(0)) / (view.var(0, correction=0) + eps).sqrt()


def _off_diagonal(matrix: Tensor) -> Tensor:
    """Return the sum of the squares off the diagonal."""
    return matrix.square().where(others(matrix), 0.0).sum()
