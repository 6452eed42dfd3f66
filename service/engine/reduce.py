"""Reduce unreduced losses, many at once or one: the only place where weights, divisors and means are applied.

The reduction is linear in the unreduced loss, so its share of the chain rule is known: it becomes the upstream
gradient that the loss's own function is differentiated with. That is faster than a graph of sums and quotients,
and an empty mean has zero gradients as a matter of course.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call


class Reduced(NamedTuple):
    """A value, and its derivative with respect to what was reduced."""

    value: Tensor
    slope: Tensor


def reduce_each(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None) -> Reduced:
    """Reduce losses that are stacked along a first axis, each by itself.

    ``call`` is one of them. The sample weights and upstream gradients have that axis too: ``[B, ...]`` with the
    rank of the stacked losses, and ``[B]`` or, under the reduction ``none``, the losses' own shape.
    """
    loss = reducible(call, terms).detach()
    # a weight of 0 removes an infinite loss, too
    value = loss if weight is None else torch.where(weight == 0, 0.0, loss * weight)
    slope: Tensor | None = None if weight is None else weight.expand_as(loss)
    if call.reduction == "mean":
        total = _divisors(loss, terms.divisor, slope)
        value = torch.where(total == 0, call.loss.empty_mean, _sum_each(value) / total)
        # divided by infinity, an empty mean has no slope
        share = spread(torch.where(total == 0, torch.inf, total), loss)
        slope = (1 / share).expand_as(loss) if slope is None else slope / share
    elif call.reduction == "sum":
        value = _sum_each(value)
    if slope is None:
        slope = torch.ones_like(loss)
    return Reduced(value, slope if upstream is None else slope * spread(upstream, loss))


def reduce(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None) -> Reduced:
    """Reduce the loss of one call: a stack of one."""
    each = Terms(terms.loss[None], _first(terms.divisor), _first(terms.mean_terms), terms.aux)
    value, slope = reduce_each(call, each, _first(weight), _first(upstream))
    return Reduced(value[0], slope[0])


def reducible(call: Call, terms: Terms) -> Tensor:
    """Return what the call's reduction is applied to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _divisors(loss: Tensor, divisor: Tensor | None, weight: Tensor | None) -> Tensor:
    """Return what each mean divides by: the sum of its weighted divisors, one an element by default."""
    if divisor is None and weight is None:
        return loss.new_full((len(loss),), loss[0].numel())
    counted = weight if divisor is None else divisor.detach().expand_as(loss)
    assert counted is not None
    return _sum_each(counted if divisor is None or weight is None else counted * weight)


def _first(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor as a stack of one."""
    return None if tensor is None else tensor[None]


def _sum_each(stack: Tensor) -> Tensor:
    """Sum each of several stacked tensors."""
    return stack.reshape(len(stack), -1).sum(1)


def spread(each: Tensor, like: Tensor) -> Tensor:
    """Give what there is one of for each stacked tensor the rank of what it is multiplied with."""
    return each.reshape(each.shape + (1,) * (like.dim() - each.dim()))
