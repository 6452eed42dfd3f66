"""Losses of whole lists of scores, by the pairs in them or by the distribution over them."""

from typing import Annotated, NamedTuple

import torch
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Mask
from service.catalogue.spec import Divisor, Prediction, Scales, Target, Unreduced
from service.catalogue.twice import differentiated_twice
from service.losses.ranking.items import descending, valid_items
from service.losses.ranking.preferences import hinge_cost, logistic, sum_over_pairs
from service.losses.surprise import softplus

LARGEST = torch.finfo(torch.float64).max
"""Substitutes for infinite scores, some powers of 2 apart: their differences are 0, not NaN."""


class PairsLoss(NamedTuple):
    """The sum over the pairs of each list, and their number."""

    loss: Annotated[Tensor, Unreduced("N")]
    divisor: Annotated[Tensor, Divisor("N")]


@loss(
    title="RankNet, lists",
    tasks=("ranking",),
    aliases=("pairwise_logistic",),
    keywords=(
        "learning to rank",
        "pairwise preferences",
        "reward model",
    ),
    work="N L L",
    range=(0, None),
)
def ranknet(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    sigma: Annotated[float, Gt(0)] = 1.0,
) -> PairsLoss:
    r"""Logistic loss of every pair of a list whose labels differ: many relevance grades per query.

    Formula:
        \sum_{y_i > y_j} \log\left(1 + e^{-\sigma\,(\hat s_i - \hat s_j)}\right)

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item; only its order matters.
        mask: True for real items, false for padding.
        sigma: Steepness of the probability that the item of the higher score is the more relevant.

    Use when:
        Each query has items of several grades and you want a smooth, robust loss of their order.

    Pitfalls:
        The mean is over all pairs of all lists together, so long lists weigh more; `sum` and `none` are
        sums over a list's pairs. Items of equal relevance make no pair, and a list of one grade leaves the
        mean. The bottom of a list counts as much as its top: `lambdarank` does not.

    Sources:
        - Burges et al. (2005), Learning to Rank using Gradient Descent, https://doi.org/10.1145/1102351.1102363
    """
    return PairsLoss(*sum_over_pairs(scores, targets, mask, logistic(sigma)))


@loss(
    title="Pairwise hinge",
    tasks=("ranking",),
    aliases=("rank_svm",),
    work="N L L",
    range=(0, None),
    scales=Scales(1, ("scores",), along=("margin",)),
)
def pairwise_hinge(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    margin: Annotated[float, Gt(0)] = 1.0,
) -> PairsLoss:
    r"""Hinge loss of every pair of a list whose labels differ: a ranking support vector machine.

    Formula:
        \sum_{y_i > y_j} \max(0, m - (\hat s_i - \hat s_j))

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item; only its order matters.
        mask: True for real items, false for padding.
        margin: Lead from which a pair costs nothing, in the unit of the scores.

    Use when:
        Each query has items of several grades, and pairs that are clearly in order should be left alone.

    Pitfalls:
        The mean is over all pairs of all lists together, so long lists weigh more; `sum` and `none` are
        sums over a list's pairs. Items of equal relevance make no pair. The margin is the same between any
        two grades, and exactly at it the gradient is 0.

    Sources:
        - Herbrich et al. (1999), Support Vector Learning for Ordinal Regression, https://doi.org/10.1049/cp:19991091
        - Joachims (2002), Optimizing Search Engines using Clickthrough Data, https://doi.org/10.1145/775047.775067
    """
    return PairsLoss(*sum_over_pairs(scores, targets, mask, hinge_cost(margin)))


@loss(
    title="ListNet",
    tasks=("ranking",),
    aliases=("listwise_softmax",),
    keywords=(
        "learning to rank",
        "search ranking",
    ),
    work="scores",
    range=(0, None),
)
def listnet(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    temperature: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy between the softmax of the labels and that of the scores: who comes first.

    Formula:
        -\sum_i \frac{e^{y_i / T}}{\sum_j e^{y_j / T}} \log \frac{e^{\hat s_i}}{\sum_j e^{\hat s_j}}

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item.
        mask: True for real items, false for padding.
        temperature: Divides the labels: the lower, the more the best item takes all.

    Use when:
        The top of each list matters, and a linear cost in its length does too.

    Pitfalls:
        The softmax is over the labels: 0 and 1 give a soft target in which irrelevant items keep a share,
        never a one-hot one. Lower the temperature, or use `ranking_softmax`, whose weights are the labels
        themselves. The least value is the entropy of the labels, not 0.

    Sources:
        - Cao et al. (2007), Learning to Rank: From Pairwise to Listwise Approach, https://doi.org/10.1145/1273496.1273513
    """
    lead = targets / temperature
    shares = (lead if mask is None else torch.where(mask, lead, -torch.inf)).softmax(-1)
    return _cross_entropy(shares, scores, mask)


@loss(
    title="Ranking softmax",
    tasks=("ranking",),
    aliases=("softmax_ranking",),
    keywords=(
        "learning to rank",
        "recommendation",
        "click-through",
    ),
    work="scores",
    range=(0, None),
)
def ranking_softmax(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Softmax cross entropy over a list with the labels as weights: clicks and other sparse feedback.

    Formula:
        -\sum_i y_i \log \frac{e^{\hat s_i}}{\sum_j e^{\hat s_j}}

    Args:
        scores: Score of each item, one list a row.
        targets: Weight of each item, a click for instance; not normalised.
        mask: True for real items, false for padding.

    Use when:
        Lists have few relevant items, as click logs do.

    Pitfalls:
        The labels are weights and not normalised: a list of ten clicks counts ten times, and a list without
        any costs 0, yet stays in the mean. Divide the labels by their sum if every list is to count alike.

    Sources:
        - Bruch et al. (2019), An Analysis of the Softmax Cross Entropy Loss, https://doi.org/10.1145/3341981.3344221
    """
    return _cross_entropy(targets, scores, mask)


@loss(
    title="ListMLE",
    tasks=("ranking",),
    aliases=("plackett_luce",),
    work="4 scores",
    twice="64 scores",
    range=(0, None),
)
def listmle(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Negative log-likelihood of the whole right order under the Plackett-Luce model.

    Formula:
        \sum_k \left(\log \sum_{j \ge k} e^{\hat s_{\pi(j)}} - \hat s_{\pi(k)}\right),
        \quad y_{\pi(1)} \ge y_{\pi(2)} \ge \dots

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item; only its order matters.
        mask: True for real items, false for padding.

    Use when:
        The full order of each list is known, as in a finished race.

    Pitfalls:
        Items of equal relevance are taken in the order of their index, as if it were the truth: with few
        grades shuffle the items, or use `ranknet`. The value grows with the length of the list.

    Sources:
        - Xia et al. (2008), Listwise Approach to Learning to Rank, https://doi.org/10.1145/1390156.1390306
    """
    valid = valid_items(scores, mask)
    order = descending(targets, valid)
    counted = valid.gather(-1, order)
    # in float64: the derivative is the exponential of a difference, which at 1e4 keeps 4 digits in float32;
    # finite, because infinity minus itself is NaN: excluded items rank below those of minus infinity
    ranked = scores.double().clamp(-LARGEST / 8, LARGEST / 8).gather(-1, order)
    ranked = torch.where(counted, ranked, -LARGEST / 2)
    later = _sums_of_later(ranked)[:, 1:]
    # -log of the share that an item has of itself and all later ones, by the odds of the later ones
    costs = torch.where(counted[:, 1:], softplus(later - ranked[:, :-1]), 0.0)
    return _infinite(costs).sum(-1).to(scores)


def _sums_of_later(ranked: Tensor) -> Tensor:
    """Return the log sum exp of each score and all after it, along the last axis."""
    if differentiated_twice() is None:
        return ranked.flip(-1).logcumsumexp(-1).flip(-1)
    # torch finds its slope by logarithms, whose own slope is wrong where the upstream gradient is 0
    sums, ahead = ranked, 1
    while ahead < ranked.shape[-1]:
        more = torch.logaddexp(sums[..., :-ahead], sums[..., ahead:])
        sums, ahead = torch.cat([more, sums[..., -ahead:]], -1), 2 * ahead
    return sums


def _cross_entropy(weights: Tensor, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weighted negative log-softmax over the valid items, 0 where there are none."""
    # in float64, which has the digits of a share near 1; finite, as a weight of 0 times infinity would be NaN
    known = scores.double().clamp(-LARGEST / 8, LARGEST / 8)
    if mask is not None:
        # excluded items rank below those of minus infinity
        known, weights = torch.where(mask, known, -LARGEST / 2), torch.where(mask, weights, 0.0)
    return _infinite(-(weights * known.log_softmax(-1)).sum(-1)).to(scores)


def _infinite(costs: Tensor) -> Tensor:
    """Return infinity where only an infinite score gives such a cost."""
    return torch.where(costs > LARGEST / 2**64, torch.inf, costs)
