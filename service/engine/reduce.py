"""Reduce unreduced losses, one or many at once: the only place that applies weights, divisors and means.

The reduction is linear in the unreduced loss, so its derivative is known: it becomes the upstream gradient for
autograd. That is faster than recording a graph of sums and quotients, and an empty mean gets zero gradients
without special cases.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call


class Reduced(NamedTuple):
    """A value, and its derivative with respect to the unreduced loss."""

    value: Tensor
    slope: Tensor


def reduce_each(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None) -> Reduced:
    """Reduce losses that are stacked along a first axis, each separately.

    ``call`` is one of them. The sample weights and upstream gradients have that axis too: ``[B, ...]`` with the
    rank of the stacked losses, and ``[B]`` or, under the reduction ``none``, the losses' own shape.
    """
    loss = reducible(call, terms).detach()
    value = loss if weight is None else loss * weight
    if call.reduction == "mean":
        value, slope = _mean_each(value, terms.divisor, weight, call.loss.empty_mean)
    else:
        value = value if call.reduction == "none" else _sum_each(value)
        slope = torch.ones_like(loss) if weight is None else weight.expand_as(loss)
    return Reduced(value, slope if upstream is None else slope * spread(upstream, loss))


def reduce(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None) -> Reduced:
    """Reduce the loss of one call: a stack of one."""
    each = Terms(terms.loss[None], _first(terms.divisor), _first(terms.mean_terms), terms.aux)
    value, slope = reduce_each(call, each, _first(weight), _first(upstream))
    return Reduced(value[0], slope[0])


def reducible(call: Call, terms: Terms) -> Tensor:
    """Return the tensor that the call's reduction applies to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _mean_each(weighted: Tensor, divisor: Tensor | None, weight: Tensor | None, empty: float) -> Reduced:
    """Divide the sum of each weighted loss by the sum of its weighted divisors, 1 an element by default."""
    if divisor is None and weight is None:
        # never 0: a mean of no elements is refused. The general case below would be a third of a small call's time
        count = weighted[0].numel()
        return Reduced(_sum_each(weighted) / count, weighted.new_full((), 1 / count).expand_as(weighted))
    share = torch.ones_like(weighted) if weight is None else weight.expand_as(weighted)
    total = _sum_each(share if divisor is None else share * divisor.detach())
    nothing = total == 0
    # dividing by infinity gives an empty mean a slope of 0
    slope = share / spread(total.masked_fill(nothing, torch.inf), weighted)
    return Reduced((_sum_each(weighted) / total).masked_fill(nothing, empty), slope)


def _first(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor as a stack of one."""
    return None if tensor is None else tensor[None]


def _sum_each(stack: Tensor) -> Tensor:
    """Sum each of several stacked tensors."""
    return stack.reshape(len(stack), -1).sum(1)


def spread(each: Tensor, like: Tensor) -> Tensor:
    """Reshape one value for each stacked tensor so that it broadcasts over them."""
    return each.reshape(each.shape + (1,) * (like.dim() - each.dim()))
