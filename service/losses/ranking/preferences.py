"""Sums over all pairs of a list whose first item is the more relevant one."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from service.catalogue.rounds import rounds

Cost = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes the differences s_i - s_j of pairs; returns the cost of each pair, and its derivative."""

Weight = Callable[[slice], Tensor]
"""Returns the weights of the pairs of a range of items with all items."""

BLOCK = 2**20
"""How many pairs are held in memory at once: more than a cache holds makes it slower on a CPU."""


class PairSum(NamedTuple):
    """The total cost of the pairs in each list, and their number."""

    total: Tensor
    pairs: Tensor


def sum_over_pairs(
    scores: Tensor, targets: Tensor, mask: Tensor | None, cost: Cost, weight: Weight | None = None
) -> PairSum:
    """Sum a cost of s_i - s_j over the pairs of each list with y_i > y_j, both valid.

    The derivative is summed along with the value, block by block: recorded for autograd, the L x L pairs of
    10,000 items would take 400 MB for every operation. Weights are constants to it.
    """
    fixed = scores.detach()
    # a comparison with NaN is false, so that items left out are in no pair
    labels = targets.detach() if mask is None else torch.where(mask, targets.detach(), torch.nan)
    total = count = scores.new_zeros(scores.shape[0])
    pull, push = [scores.new_zeros(scores.shape[0], 0)], torch.zeros_like(fixed)
    for block in _blocks(*scores.shape):
        costs, slopes = cost(fixed[:, block, None] - fixed[:, None])
        if weight is not None:
            weights = weight(block)
            costs, slopes = weights * costs, weights * slopes
        pairs = labels[:, block, None] > labels[:, None]
        slopes = torch.where(pairs, slopes, 0.0)
        total = total + torch.where(pairs, costs, 0.0).sum((-2, -1))
        count = count + pairs.sum((-2, -1))
        pull, push = [*pull, slopes.sum(-1)], push + slopes.sum(-2)
    return PairSum(_with_gradient(total, scores, torch.cat(pull, -1) - push), count)


def logistic(sigma: float) -> Cost:
    """Return softplus(-sigma d): the negative log-probability that the first item of a pair wins."""
    return lambda d: (-F.logsigmoid(sigma * d), -sigma * torch.sigmoid(-sigma * d))


def hinge(margin: float) -> Cost:
    """Return relu(margin - d), whose slope at the kink is 0."""
    return lambda d: (F.relu(margin - d), -(d < margin).to(d))


def _blocks(lists: int, items: int) -> Iterator[slice]:
    """Cut the items into ranges whose pairs with all items fit in a block."""
    step = max(1, BLOCK // max(1, lists * items))
    return (slice(start, start + step) for start in rounds(0, items, step))


def _with_gradient(value: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Return ``value`` with the derivative ``gradient`` by each row of ``inputs``."""
    # the difference is 0; an infinite score's would be NaN
    return value + ((inputs - inputs.detach()).nan_to_num() * gradient).sum(-1)
