"""Reduce unreduced losses, one or many at once: the only place that applies weights, divisors and means.

The reduction is linear in the unreduced loss, so its derivative is known: it becomes the upstream gradient for
autograd. That is faster than recording a graph of sums and quotients, and an empty mean gets zero gradients
without special cases.
"""

from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call


class Reduced(NamedTuple):
    """A value, and its derivative with respect to the unreduced loss."""

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
    """Return the tensor that the call's reduction applies to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _mean(
    weighted: Tensor, divisor: Tensor | None, weight: Tensor | None, empty: float, axes: int
) -> Reduced:
    """Divide the sum of each weighted loss by the sum of its weighted divisors, 1 an element by default."""
    count = _count(weighted, divisor, axes) if weight is None else None
    if count is not None:
        value = _sum(weighted, axes) / count if count else weighted.new_full((), empty)
        return Reduced(value, weighted.new_full((), 1 / (count or inf)).expand_as(weighted))
    parts = [part.expand_as(weighted) for part in (weight, divisor) if part is not None]
    total = _sum(prod(parts[1:], start=parts[0]).detach(), axes)
    nothing = total == 0
    # dividing by infinity gives an empty mean a slope of 0
    finite = spread(total.masked_fill(nothing, inf), weighted)
    slope = (finite.reciprocal() if weight is None else weight / finite).expand_as(weighted)
    return Reduced((_sum(weighted, axes) / total).masked_fill(nothing, empty), slope)


def _count(weighted: Tensor, divisor: Tensor | None, axes: int) -> float | None:
    """Return the sum of unweighted divisors as a number, or None if reading it would wait for a device.

    The arithmetic on tensors takes a third of a small call's time.
    """
    if divisor is None:
        # never 0: a mean of no elements is refused
        return prod(weighted.shape[axes:])
    return None if axes or not divisor.is_cpu else divisor.expand_as(weighted).sum().item()


def _sum(tensor: Tensor, axes: int) -> Tensor:
    """Sum over all axes but the stacked ones."""
    return tensor.reshape(*tensor.shape[:axes], -1).sum(axes) if axes else tensor.sum()


def spread(each: Tensor, like: Tensor) -> Tensor:
    """Reshape one value for each stacked tensor so that it broadcasts over them."""
    return each.reshape(each.shape + (1,) * (like.dim() - each.dim()))
