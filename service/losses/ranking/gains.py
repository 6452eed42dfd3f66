"""Discounted cumulative gain: the gain of an item, the discount of a rank, and the best value of a list."""

import math

import torch
from torch import Tensor


def exponential_gains(targets: Tensor, valid: Tensor) -> Tensor:
    """Return 2^y - 1 for each item, in units of 2 to the highest label of its list; 0 for items left out.

    Only ratios of gains within a list enter a loss, and in these units a label of 1000 does not overflow.
    """
    labels = torch.where(valid, targets, 0.0)
    highest = labels.amax(-1, keepdim=True).detach()
    # 2^(y - m) (1 - 2^-y): expm1 keeps the digits of small labels
    return torch.exp2(labels - highest) * -torch.expm1(-math.log(2) * labels)


def discounts(ranks: int, like: Tensor) -> Tensor:
    """Return log2(1 + rank) for the first ranks of a list."""
    return torch.log2(torch.arange(2, ranks + 2, dtype=like.dtype, device=like.device))


def cumulative_gain(gains: Tensor, k: int | None) -> Tensor:
    """Return the discounted gain of the first ``k`` ranks of lists that are in order."""
    top = gains[:, :k]
    return (top / discounts(top.shape[-1], top)).sum(-1)


def ideal_gain(gains: Tensor, k: int | None) -> Tensor:
    """Return the highest discounted gain that any order of the items has."""
    return cumulative_gain(gains.sort(dim=-1, descending=True).values, k)
