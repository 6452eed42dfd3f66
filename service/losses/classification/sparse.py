"""Losses whose predicted distribution is sparse: classes that are far behind have probability exactly zero.

Both are Fenchel-Young losses: they are minima over the threshold too, so their gradient is the predicted
distribution minus the target, whatever way the threshold was found.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced
from service.losses.classification.class_axis import at_target, one_hot
from service.losses.classification.slopes import zeros_with_slope


@loss(
    title="Sparsemax",
    tasks=("classification",),
    aliases=("multiclass_sparsemax",),
    keywords=(
        "sparse probabilities",
        "sparsity",
        "sparse attention",
    ),
    requires=(SizeRange("C", least=2),),
    work="3 logits",
    range=(0, None),
)
def sparsemax(
    logits: Annotated[Tensor, Prediction("N C")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy's counterpart for sparsemax, which gives classes far behind no probability at all.

    Formula:
        -z_y + \frac{1}{2} + \frac{1}{2} \sum_{j \in S} (z_j^2 - \tau^2),
        \quad \sum_j \max(0,\ z_j - \tau) = 1,\ S = \{j : z_j > \tau\}

    Args:
        logits: One score for each class.
        targets: Index of the true class.

    Use when:
        The model ends in a sparsemax, so that few classes have a probability above zero.

    Pitfalls:
        The loss is exactly zero, and so is its gradient, once the true class leads all others by 1.
        Softmax probabilities of the same logits are another distribution.

    Sources:
        - Martins and Astudillo (2016), From Softmax to Sparsemax, https://arxiv.org/abs/1602.02068
    """
    scores = _behind(logits.detach())
    threshold = _sparsemax_threshold(scores).to(scores)
    target = one_hot(targets, logits.shape[1]).to(scores)
    distance = F.relu(scores - threshold) - target
    # the definition without its differences of squares: half the squared distance of the two distributions,
    # plus how far the true class is below the threshold
    below = F.relu(threshold[:, 0] - at_target(scores, targets))
    value = distance.square().sum(1) / 2 + below
    return value + zeros_with_slope(logits, distance).sum(1)


@loss(
    title="Entmax 1.5",
    tasks=("classification",),
    requires=(SizeRange("C", least=2),),
    work="2 logits",
    range=(0, None),
)
def entmax15(
    logits: Annotated[Tensor, Prediction("N C")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Between cross entropy and sparsemax: a smooth distribution that still has exact zeros.

    Formula:
        \frac{4}{3}\left(1 - \sum_j q_j^{3/2}\right) + \sum_j q_j z_j - z_y,
        \quad q_j = \max(0,\ z_j / 2 - \tau)^2,\ \sum_j q_j = 1

    Args:
        logits: One score for each class.
        targets: Index of the true class.

    Use when:
        Sparse probabilities are wanted, as in sequence models, and sparsemax is too coarse.

    Pitfalls:
        The loss is exactly zero, and so is its gradient, once the true class leads all others by 2.
        Softmax probabilities of the same logits are another distribution.

    Sources:
        - Peters et al. (2019), Sparse Sequence-to-Sequence Models, https://arxiv.org/abs/1905.05702
    """
    scores = _behind(logits.detach()) / 2
    threshold = _entmax15_threshold(scores).to(scores)
    roots = F.relu(scores - threshold)
    true = one_hot(targets, logits.shape[1])
    # the definition with z / 2 = tau + root - (how far below tau), as a sum of terms that cannot be negative
    terms = torch.where(true, (1 - roots).square() * (2 + roots), roots**3)
    below = F.relu(threshold[:, 0] - at_target(scores, targets))
    value = 2 * terms.sum(1) / 3 + 2 * below
    return value + zeros_with_slope(logits, roots.square() - true.to(roots)).sum(1)


def _behind(logits: Tensor) -> Tensor:
    """Return how far each score is from the best: 0 or less."""
    # an infinite one as the largest number, as minus itself it would be NaN
    known = logits.clamp(max=torch.finfo(logits.dtype).max)
    return known - known.amax(1, keepdim=True)


def _sparsemax_threshold(scores: Tensor) -> Tensor:
    """Return tau ``[N, 1]`` such that relu(scores - tau) sums to 1, where the best score is 0."""
    ranked = _ranked(scores)
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    thresholds = (ranked.cumsum(1) - 1) / ranks
    return _last_below(thresholds, ranked)


def _entmax15_threshold(scores: Tensor) -> Tensor:
    """Return tau ``[N, 1]`` such that relu(scores - tau) ** 2 sums to 1, where the best score is 0."""
    ranked = _ranked(scores)
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    mean = ranked.cumsum(1) / ranks
    spread = ranked.square().cumsum(1) - ranks * mean.square()
    thresholds = mean - F.relu((1 - spread) / ranks).sqrt()
    return _last_below(thresholds, ranked)


def _ranked(scores: Tensor) -> Tensor:
    """Return the scores in descending order; no threshold is below -1, so nothing below it needs its size.

    In float64: the error of a sum over thousands of classes would be the error of each class.
    """
    return scores.double().clamp(min=-1).sort(dim=1, descending=True).values


def _last_below(thresholds: Tensor, ranked: Tensor) -> Tensor:
    """Return the threshold of the longest run of leading scores that are all above their threshold."""
    support = (thresholds <= ranked).sum(1, keepdim=True)
    # NaN is never below anything
    return thresholds.gather(1, (support - 1).clamp(min=0))
