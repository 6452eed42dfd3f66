"""Normalised discounted cumulative gain as a loss: the metric itself, and two smooth versions of it."""

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Mask
from service.catalogue.rounds import lasting, rounds
from service.catalogue.spec import Divisor, Prediction, Scales, Target, Unreduced
from service.losses.ranking.gains import cumulative_gain, exponential_gains, ideal_gain
from service.losses.ranking.items import descending, valid_items

FAR = 1000.0
"""Differences of this many temperatures count as infinite: their exponential is 0 in float64."""


class NdcgLoss(NamedTuple):
    """One minus the NDCG of a list, and whether it has relevant items; without any it is excluded from the mean."""

    loss: Annotated[Tensor, Unreduced("N")]
    divisor: Annotated[Tensor, Divisor("N")]


@loss(
    title="Approximate NDCG",
    tasks=("ranking",),
    aliases=("approxndcg",),
    keywords=(
        "learning to rank",
        "search ranking",
    ),
    work="N L L",
    range=(0, 1),
    unit="one minus a ratio of gains",
    scales=Scales(0, ("scores",), along=("temperature",)),
)
def approx_ndcg(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    temperature: Annotated[float, Gt(0)] = 1.0,
) -> NdcgLoss:
    r"""One minus NDCG with soft ranks: a differentiable stand-in for the metric.

    Formula:
        1 - \frac{1}{\mathrm{IDCG}} \sum_i \frac{2^{y_i} - 1}{\log_2(1 + \hat r_i)},
        \quad \hat r_i = 1 + \sum_{j \ne i} \varsigma\left(\frac{\hat s_j - \hat s_i}{T}\right)

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item.
        mask: True for real items, false for padding.
        temperature: Difference of scores over which a rank changes hands; towards 0 the ranks become the
            true ones.

    Use when:
        NDCG is your metric, and you want a loss whose value can be read as it.

    Pitfalls:
        The lower the temperature, the truer the ranks and the smaller the gradients: at differences of many
        temperatures nothing is learned. Lists without relevant items are excluded from the mean. Other libraries return
        the negative NDCG: this is 1 more.

    Sources:
        - Qin et al. (2010), A General Approximation Framework for Direct Optimization of IR Measures, https://doi.org/10.1007/s10791-009-9124-x
    """
    valid = valid_items(scores, mask)
    # an infinite score is as far ahead as the largest number, but minus itself it would be NaN
    most = torch.finfo(scores.dtype).max / 4
    known = scores.clamp(-most, most)
    rivals = torch.where(valid, known, -torch.inf)[:, None]
    own = torch.where(valid, known, 0.0)[:, :, None]
    # an item's own term in the sum is the sigmoid of 0
    ranks = 0.5 + torch.sigmoid((rivals - own) / temperature).sum(-1)
    gains = exponential_gains(targets, valid)
    return _shortfall((gains / torch.log2(1 + ranks)).sum(-1), ideal_gain(gains, None))


@loss(
    title="Neural NDCG",
    tasks=("ranking",),
    aliases=("neuralndcg",),
    work=("N L L", "N L L max_iter/16", "11 scores"),
    overhead="4096 max_iter",
    range=(None, 1),
    unit="one minus a ratio of gains",
    scales=Scales(0, ("scores",), along=("temperature",)),
)
def neural_ndcg(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    temperature: Annotated[float, Gt(0)] = 1.0,
    k: Annotated[int, Ge(1)] | None = None,
    max_iter: Annotated[int, Ge(0), Le(10_000)] = 50,
) -> NdcgLoss:
    r"""One minus NDCG of a softly sorted list: NeuralSort made doubly stochastic by Sinkhorn scaling.

    Formula:
        1 - \frac{1}{\mathrm{IDCG}@k} \sum_{r \le k} \frac{\sum_j \hat P_{rj}\, (2^{y_j} - 1)}{\log_2(1 + r)},
        \quad \hat P = \mathrm{Sinkhorn}(P),
        \quad P_{rj} \propto \exp\left(\frac{(n + 1 - 2r)\, \hat s_j - \sum_m |\hat s_j - \hat s_m|}{T}\right)

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item.
        mask: True for real items, false for padding.
        temperature: Sharpness of the sorting: towards 0 it becomes the true one.
        k: Ranks that count; null for all.
        max_iter: Rounds of dividing by the column sums, then by the row sums.

    Use when:
        NDCG is your metric, lists are short, and `approx_ndcg` is too coarse.

    Pitfalls:
        Exactly `max_iter` rounds are made; implementations that stop early by the worst list of a batch
        give a list a value that depends on its neighbours. Time and memory grow with the square of the
        length. Lists without relevant items are excluded from the mean.

    Sources:
        - Pobrotyn and Bialobrzeski (2021), NeuralNDCG, https://arxiv.org/abs/2102.07831
        - Grover et al. (2019), Stochastic Optimization of Sorting Networks via Continuous Relaxations, https://arxiv.org/abs/1903.08850
    """
    valid = valid_items(scores, mask)
    gains = exponential_gains(targets, valid)
    expected = _softly_sorted(gains, torch.where(valid, scores, 0.0), valid, temperature, max_iter)
    return _shortfall(cumulative_gain(expected, k), ideal_gain(gains, k), -torch.inf)


@loss(
    title="NDCG",
    tasks=("ranking",),
    aliases=("ndcg_metric",),
    differentiable=False,
    work="2 scores",
    range=(0, 1),
    unit="one minus a ratio of gains",
    scales=Scales(0, ("scores",)),
)
def ndcg(
    scores: Annotated[Tensor, Prediction("N L")],
    targets: Annotated[Tensor, Target("N L", AtLeast(0), where="mask")],
    mask: Annotated[Tensor, Target("N L", Mask())] | None = None,
    *,
    k: Annotated[int, Ge(1)] | None = None,
    gain: Literal["exponential", "linear"] = "exponential",
    ties: Literal["index", "average"] = "index",
) -> NdcgLoss:
    r"""One minus the normalised discounted cumulative gain: the ranking metric, for evaluation.

    Formula:
        1 - \frac{\mathrm{DCG}@k}{\mathrm{IDCG}@k},
        \quad \mathrm{DCG}@k = \sum_{r \le k} \frac{g_{\pi(r)}}{\log_2(1 + r)},
        \quad \hat s_{\pi(1)} \ge \hat s_{\pi(2)} \ge \dots

    Args:
        scores: Score of each item, one list a row.
        targets: Relevance of each item.
        mask: True for real items, false for padding.
        k: Ranks that count; null for all.
        gain: The gain of an item: 2^y - 1, or its relevance y itself.
        ties: Items of equal score are ranked by their `index`, or count with the `average` over all of their
            orders, which is their mean gain at each of their ranks.

    Use when:
        You compare rankers. To train one, use `lambdarank` or `approx_ndcg`.

    Pitfalls:
        It has no gradient. With ties by `index` a ranker of equal scores for all is as good as the order in
        which items are sent: use `average` if scores are coarse. That of scikit-learn is `average` with the
        linear gain. Lists without relevant items leave the mean, rather than count as perfect or as worst.

    Sources:
        - Järvelin and Kekäläinen (2002), Cumulated Gain-Based Evaluation of IR Techniques, https://doi.org/10.1145/582415.582418
        - McSherry and Najork (2008), Computing Information Retrieval Performance Measures Efficiently in the
          Presence of Tied Scores, https://doi.org/10.1007/978-3-540-78646-7_38
    """
    valid = valid_items(scores, mask)
    gains = exponential_gains(targets, valid) if gain == "exponential" else torch.where(valid, targets, 0.0)
    # NaN has no rank
    unranked = (valid & scores.isnan()).any(-1, keepdim=True)
    order = descending(scores, valid)
    ranked = gains.gather(-1, order)
    if ties == "average":
        ranked = _tied(ranked, torch.where(valid, scores, torch.nan).gather(-1, order))
    ranked = torch.where(unranked, torch.nan, ranked)
    return _shortfall(cumulative_gain(ranked, k), ideal_gain(gains, k))


def _tied(ranked: Tensor, scores: Tensor) -> Tensor:
    """Return the mean gain of the items that have an equal score, for items in order; NaN is equal to nothing."""
    first = torch.ones_like(scores, dtype=torch.bool)
    first[:, 1:] = scores[:, 1:] != scores[:, :-1]
    group = first.cumsum(-1) - 1
    # in float64, as thousands of items may be equal
    totals, sizes = (
        torch.zeros_like(ranked, dtype=torch.float64).scatter_add(-1, group, part)
        for part in (ranked.double(), torch.ones_like(ranked, dtype=torch.float64))
    )
    return (totals / sizes.clamp(min=1)).gather(-1, group).to(ranked)


def _shortfall(gain: Tensor, ideal: Tensor, least: float = 0.0) -> NdcgLoss:
    """Return one minus the ratio of a gain to the ideal one; 0 if the ideal one is 0.

    Less than ``least`` it lacks by rounding only.
    """
    relevant = ideal > 0
    loss = (1 - gain / torch.where(relevant, ideal, 1.0)).clamp(min=least)
    return NdcgLoss(torch.where(relevant, loss, 0.0), relevant.to(loss))


def _softly_sorted(gains: Tensor, scores: Tensor, valid: Tensor, temperature: float, max_iter: int) -> Tensor:
    """Return the expected gain at each rank of the valid items, 0 at the ranks beyond."""
    count = valid.sum(-1, keepdim=True)
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    # in float64: the difference between two items may be small compared with that to a third
    levels = _without_gaps(scores.double() / temperature, valid)
    spread = torch.where(valid[:, None], levels[:, :, None] - levels[:, None], 0.0).abs().sum(-1)
    lead = (count + 1 - 2 * rank)[:, :, None] * levels[:, None] - spread[:, None]
    # finite where left out: a list without any valid item stays free of NaN
    sorting = torch.where(valid[:, None], lead, torch.finfo(lead.dtype).min).softmax(-1).to(scores)
    # Sinkhorn's rounds divide whole rows and columns, so their factors suffice, L numbers a round, not L^2
    row = used = (rank <= count).to(scores)
    column = torch.ones_like(scores)
    for _ in rounds(max_iter):
        column = _inverse(_product(sorting.mT, row))
        row = lasting(used * _inverse(_product(sorting, column)))
    return row * _product(sorting, column * gains)


def _without_gaps(scores: Tensor, valid: Tensor) -> Tensor:
    """Return scores in the same order, with neighbours no further apart than a softmax can distinguish, the last at 0."""
    order = descending(scores.detach(), valid)
    ranked = scores.gather(-1, order)
    gaps = ranked[:, :-1] - ranked[:, 1:]
    # infinity is not ahead of itself, and nothing valid is followed by an item that is left out
    tied = (ranked[:, :-1] == ranked[:, 1:]) & ranked[:, 1:].isinf()
    gaps = torch.where(tied | ~valid.gather(-1, order)[:, 1:], 0.0, gaps).clamp(max=FAR)
    ahead = F.pad(gaps, (0, 1)).flip(-1).cumsum(-1).flip(-1)
    return ahead.gather(-1, order.argsort(-1))


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """Multiply each list's matrix with its vector."""
    return (matrix @ vector[:, :, None])[:, :, 0]


def _inverse(total: Tensor) -> Tensor:
    """Return one over a sum, and 1 where nothing was summed."""
    return torch.where(total == 0, 1.0, total).reciprocal()
