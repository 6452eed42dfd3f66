"""Pairwise losses that weight a pair by the change in NDCG if its items were swapped."""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Mask
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.ranking.gains import discounts, exponential_gains, ideal_gain
from service.losses.ranking.items import descending, valid_items
from service.losses.ranking.preferences import logistic, sum_over_pairs

Scheme = Literal["ndcg_loss2pp", "ndcg_loss2", "lambdarank", "ranknet"]


@loss(
    title="LambdaLoss",
    tasks=("ranking",),
    work="N L L",
    range=lambda params: (0 if params["mu"] >= 0 else None, None),
)
def lambda_loss(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    weighing_scheme: Scheme = "ndcg_loss2pp",
    k: Annotated[int, Ge(1)] | None = None,
    sigma: Annotated[float, Gt(0)] = 1.0,
    mu: float = 10.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Pairwise logistic loss with weights that make it a bound of NDCG: the top of the list counts most.

    Formula:
        \sum_{y_i > y_j} w_{ij} \log_2\left(1 + e^{-\sigma\,(\hat s_i - \hat s_j)}\right),
        \quad w_{ij} = \left(\mu\, \delta_{|i - j|}
        + \left|\tfrac{1}{D_i} - \tfrac{1}{D_j}\right|\right) |G_i - G_j|,
        \quad \delta_q = \tfrac{1}{D_q} - \tfrac{1}{D_{q + 1}},
        \quad D_r = \log_2(1 + r), \quad G_i = \frac{2^{y_i} - 1}{\mathrm{IDCG}@k}

    Args:
        scores: Score of each item, one list a row; an item's rank i follows from them.
        targets: Relevance of each item.
        mask: True for real items, false for padding.
        weighing_scheme: Which weights: `ndcg_loss2` has the first term of the sum without mu, `lambdarank`
            the second, `ndcg_loss2pp` both, `ranknet` is 1.
        k: Only pairs with both ranks up to k count, and the ideal gain is that of k ranks; null for all.
        sigma: Steepness of the probability that the item of the higher score is the more relevant.
        mu: Weight of the first term in `ndcg_loss2pp`.

    Use when:
        NDCG is your metric.

    Pitfalls:
        The logarithm has base 2, that of `lambdarank` is natural. The value is a sum over a list's pairs
        and the mean one over lists, those without relevant items included. Weights follow from the ranks at
        the moment and carry no gradient. With k, a relevant item that is ranked below k gets no gradient at
        all.

    Sources:
        - Wang et al. (2018), The LambdaLoss Framework for Ranking Metric Optimization, https://doi.org/10.1145/3269206.3271784
    """
    return _weighed_pairs(scores, targets, mask, weighing_scheme, k, sigma, mu) / math.log(2)


@loss(title="LambdaRank", tasks=("ranking",), aliases=("lambda_rank",), work="N L L", range=(0, None))
def lambdarank(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    k: Annotated[int, Ge(1)] | None = None,
    sigma: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Pairwise logistic loss, each pair weighed by the NDCG that swapping its items would cost.

    Formula:
        \sum_{y_i > y_j} \left|\tfrac{1}{D_i} - \tfrac{1}{D_j}\right| |G_i - G_j|
        \log\left(1 + e^{-\sigma\,(\hat s_i - \hat s_j)}\right),
        \quad D_r = \log_2(1 + r), \quad G_i = \frac{2^{y_i} - 1}{\mathrm{IDCG}@k}

    Args:
        scores: Score of each item, one list a row; an item's rank i follows from them.
        targets: Relevance of each item.
        mask: True for real items, false for padding.
        k: Only pairs with both ranks up to k count, and the ideal gain is that of k ranks; null for all.
        sigma: Steepness of the probability that the item of the higher score is the more relevant.

    Use when:
        You want the gradients of LambdaMART and of boosted rankers such as LightGBM for a model of your
        own.

    Pitfalls:
        Items of equal score are ranked by their index: at the start, when all scores are alike, the weights
        depend on the order in which the items are sent. The logarithm is natural, so that the gradient is
        Burges' lambda; `lambda_loss` has base 2. With k, a relevant item that is ranked below k gets no
        gradient.

    Sources:
        - Burges et al. (2006), Learning to Rank with Nonsmooth Cost Functions, https://papers.nips.cc/paper/2971-learning-to-rank-with-nonsmooth-cost-functions
        - Burges (2010), From RankNet to LambdaRank to LambdaMART: An Overview, https://www.microsoft.com/en-us/research/publication/from-ranknet-to-lambdarank-to-lambdamart-an-overview/
    """
    return _weighed_pairs(scores, targets, mask, "lambdarank", k, sigma, 0.0)


def _weighed_pairs(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    scheme: Scheme,
    k: int | None,
    sigma: float,
    mu: float,
) -> Tensor:
    """Sum the logistic loss over the pairs of the first ``k`` ranks, with a scheme's weights."""
    valid = valid_items(scores, mask)
    order = descending(scores.detach(), valid)[:, :k]
    gains = exponential_gains(targets.detach(), valid)
    ideal = ideal_gain(gains, k)
    worth = gains.gather(-1, order) / torch.where(ideal > 0, ideal, 1.0)[:, None]
    retained = 1 / discounts(order.shape[-1], scores.double())
    # by the distance of two ranks, 0 for an item and itself; far ranks differ in the last digits of float32
    steps = -retained.diff(prepend=retained[:1]).to(scores)
    retained = retained.to(scores)
    ranks = torch.arange(order.shape[-1], device=scores.device)

    def weight(block: slice) -> Tensor:
        change = (worth[:, block, None] - worth[:, None]).abs()
        if scheme == "ranknet":
            return torch.ones_like(change)
        swap = (retained[block, None] - retained).abs()
        if scheme == "lambdarank":
            return swap * change
        step = steps[(ranks[block, None] - ranks).abs()]
        return (step if scheme == "ndcg_loss2" else mu * step + swap) * change

    return sum_over_pairs(
        scores.gather(-1, order),
        targets.gather(-1, order),
        valid.gather(-1, order),
        logistic(sigma),
        weight,
    ).total
