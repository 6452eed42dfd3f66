"""Reduce unreduced losses, many at once or one: the only place where weights, divisors and means are applied.

The reduction is linear in the unreduced loss, so its share of the chain rule is known: it becomes the upstream
gradient that the loss's own function is differentiated with. That is faster than a graph of sums and quotients,
and an empty mean has zero gradients as a matter of course.
"""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call


class Reduced(NamedTuple):
    """A value, and its derivative with respect to what was reduced."""

    value: Tensor
    slope: Tensor


def reduce(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None, axes: int) -> Reduced:
    """Reduce the loss of a call, or of several like it that are stacked along the first of the ``axes``.

    A sample weight has the rank of the losses. An upstream gradient has the stacked axes alone or, under the reduction
    ``none``, the losses' own shape.
    """
    loss = reducible(call, terms).detach()
    value = loss if weight is None else loss * weight
    if call.reduction == "mean":
        value, slope = _mean(value, terms.divisor, weight, call.loss.empty_mean, axes)
    else:
        value = value if call.reduction == "none" else _sum(value, axes)
        slope = torch.ones_like(loss) if weight is None else weight.expand_as(loss)
    return Reduced(value, slope if upstream is None else slope * spread(upstream, loss))


def reducible(call: Call, terms: Terms) -> Tensor:
    """Return what the call's reduction is applied to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _mean(
    weighted: Tensor, divisor: Tensor | None, weight: Tensor | None, empty: float, axes: int
) -> Reduced:
    """Divide the sum of each weighted loss by that of its weighted divisors, one an element by default."""
    if divisor is None and weight is None:
        # never 0, as a mean of no elements is refused; small calls spend a third of their time on what follows
        count = prod(weighted.shape[axes:])
        return Reduced(_sum(weighted, axes) / count, weighted.new_full((), 1 / count).expand_as(weighted))
    share = torch.ones_like(weighted) if weight is None else weight.expand_as(weighted)
    total = _sum(share if divisor is None else share * divisor.detach(), axes)
    nothing = total == 0
    # divided by infinity, an empty mean has no slope
    slope = share / spread(total.masked_fill(nothing, torch.inf), weighted)
    return Reduced((_sum(weighted, axes) / total).masked_fill(nothing, empty), slope)


def _sum(tensor: Tensor, axes: int) -> Tensor:
    """Sum over all axes but the stacked ones."""
    return tensor.reshape(*tensor.shape[:axes], -1).sum(axes) if axes else tensor.sum()


def spread(each: Tensor, like: Tensor) -> Tensor:
    """Give what there is one of for each stacked tensor the rank of what it is multiplied with."""
    return each.reshape(each.shape + (1,) * (like.dim() - each.dim()))
