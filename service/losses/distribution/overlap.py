"""Losses that compare distributions outcome by outcome, without a logarithm of each."""

from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Simplex
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.digits import bounded, sloped


@loss(title="Squared Hellinger distance", tasks=("distribution",), aliases=("hellinger",), range=(0, 1))
def squared_hellinger(
    probabilities: Annotated[Tensor, Prediction("... C", Simplex())],
    targets: Annotated[Tensor, Target("... C", Simplex())],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Bounded symmetric distance from 0 to 1 between the square roots of two distributions.

    Formula:
        \tfrac{1}{2} \sum_c \left(\sqrt{\hat y_c} - \sqrt{y_c}\right)^2

    Args:
        probabilities: Predicted probabilities along the last axis.
        targets: Known probabilities along the last axis.

    Use when:
        Zeros on either side must not make the loss infinite, and rare outcomes should still count.

    Pitfalls:
        This is the square: the distance itself has an infinite slope where it is 0. The gradient is infinite
        where a prediction is 0 and its target is not: feed it a softmax, which never reaches 0.

    Sources:
        - Hellinger (1909), Neue Begründung der Theorie quadratischer Formen von unendlichvielen
          Veränderlichen, https://doi.org/10.1515/crll.1909.136.210
    """
    root, known_root = probabilities.detach().sqrt(), targets.detach().sqrt()
    # the difference of the roots, made of the difference of the probabilities, whose digits the roots lost
    both = (root + known_root).clamp(min=torch.finfo(root.dtype).tiny)
    apart = (probabilities - targets).detach() / both
    terms = sloped(
        apart.square() / 2,
        (apart, root, known_root),
        (probabilities, lambda apart, root, known_root: _slope(apart, root)),
        (targets, lambda apart, root, known_root: _slope(-apart, known_root)),
    )
    return bounded(terms.sum(-1), 0, 1)


def _slope(apart: Tensor, root: Tensor) -> Tensor:
    """Return half of one minus the ratio of the roots; half where both are 0, as on the way there."""
    return torch.where((apart == 0) & (root == 0), 1.0, apart / root) / 2


@loss(title="Bhattacharyya distance", tasks=("distribution",), range=(0, None))
def bhattacharyya(
    probabilities: Annotated[Tensor, Prediction("... C", Simplex())],
    targets: Annotated[Tensor, Target("... C", Simplex())],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative logarithm of how much two distributions overlap.

    Formula:
        -\ln \sum_c \sqrt{\hat y_c}\, \sqrt{y_c}

    Args:
        probabilities: Predicted probabilities along the last axis.
        targets: Known probabilities along the last axis.

    Use when:
        The overlap itself matters, as for the separability of classes or histograms in tracking.

    Pitfalls:
        Infinite where the supports are disjoint, with no gradient that would lead out: `squared_hellinger` is
        the bounded relative. It is not a metric: the triangle inequality does not hold.

    Sources:
        - Bhattacharyya (1943), On a Measure of Divergence between Two Statistical Populations Defined by
          Their Probability Distributions, Bulletin of the Calcutta Mathematical Society 35
        - Kailath (1967), The Divergence and Bhattacharyya Distance Measures in Signal Selection,
          https://doi.org/10.1109/TCOM.1967.1089532
    """
    missing, predicted, known = _roots(probabilities, targets)
    return bounded(-torch.where(missing, 0.0, predicted * known).sum(-1).log(), 0)


def _roots(probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where both sides are 0, and the square roots, with 1 there: the root of 0 has no slope."""
    missing = (probabilities == 0) & (targets == 0)
    return missing, torch.where(missing, 1.0, probabilities).sqrt(), torch.where(missing, 1.0, targets).sqrt()


@loss(title="Total variation distance", tasks=("distribution",), aliases=("tv_distance",), range=(0, 1))
def total_variation_distance(
    probabilities: Annotated[Tensor, Prediction("... C", Simplex())],
    targets: Annotated[Tensor, Target("... C", Simplex())],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Largest difference in probability that two distributions give to any one event.

    Formula:
        \tfrac{1}{2} \sum_c |\hat y_c - y_c|

    Args:
        probabilities: Predicted probabilities along the last axis.
        targets: Known probabilities along the last axis.

    Use when:
        A bounded distance with a plain meaning is wanted: the mass that would have to move.

    Pitfalls:
        The gradient is the sign of each difference, however small it is, and 0 where they agree. It does not
        know which outcomes are close: see `cdf_wasserstein`. Unrelated to the smoothness of images,
        `total_variation`.

    Sources:
        - Gibbs & Su (2002), On Choosing and Bounding Probability Metrics, https://arxiv.org/abs/math/0209021
    """
    return bounded((probabilities - targets).abs().sum(-1) / 2, 0, 1)
