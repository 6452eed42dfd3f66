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
    """A value, its derivative with respect to the unreduced loss, and the sum of weighted divisors: None under ``none``.

    The divisor is a number if all stacked calls have the same one, and reading it waits for no device.
    """

    value: Tensor
    slope: Tensor
    divisor: Tensor | float | None


def reduce(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None, axes: int) -> Reduced:
    """Reduce the loss of a call, or of several like it that are stacked along the first of the ``axes``.

    A sample weight has the rank of the losses. An upstream gradient has the stacked axes alone or, under the reduction
    ``none``, the losses' own shape.
    """
    loss = reducible(call, terms).detach()
    value, divisor = loss if weight is None else loss * weight, None
    if call.reduction != "none":
        value, divisor = _sum(value, axes), _divisor(terms, weight, axes)
    if call.reduction != "mean" or divisor is None:
        slope = torch.ones_like(loss) if weight is None else weight.expand_as(loss)
    else:
        value, slope = _mean(call, value, divisor, weight, loss)
    return Reduced(value, slope if upstream is None else slope * spread(upstream, loss), divisor)


def reducible(call: Call, terms: Terms) -> Tensor:
    """Return the tensor that the call's reduction applies to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _mean(
    call: Call, total: Tensor, divisor: Tensor | float, weight: Tensor | None, loss: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean of each call, and its slope: divided by the call's own divisor if it has one."""
    if call.divide_by is not None:
        slope = total.new_full((), 1 / call.divide_by) if weight is None else weight / call.divide_by
        return total / call.divide_by, slope.expand_as(loss)
    if not isinstance(divisor, Tensor):
        value = total / divisor if divisor else total.new_full((), call.loss.empty_mean)
        return value, total.new_full((), 1 / (divisor or inf)).expand_as(loss)
    nothing = divisor == 0
    # dividing by infinity gives an empty mean a slope of 0
    finite = spread(divisor.masked_fill(nothing, inf), loss)
    slope = (finite.reciprocal() if weight is None else weight / finite).expand_as(loss)
    return (total / divisor).masked_fill(nothing, call.loss.empty_mean), slope


def _divisor(terms: Terms, weight: Tensor | None, axes: int) -> Tensor | float:
    """Return the sum of each call's weighted divisors, 1 an element by default.

    The arithmetic on tensors takes a third of a small call's time.
    """
    counted = terms.loss if terms.mean_terms is None else terms.mean_terms
    if weight is None and terms.divisor is None:
        return float(prod(counted.shape[axes:]))
    known = terms.divisor is not None and terms.divisor.is_cpu and not terms.divisor.requires_grad
    if weight is None and terms.divisor is not None and known and not axes:
        return float(terms.divisor.expand_as(counted).sum().item())
    parts = [part.expand_as(counted) for part in (weight, terms.divisor) if part is not None]
    return _sum(prod(parts[1:], start=parts[0]).detach(), axes)


def _sum(tensor: Tensor, axes: int) -> Tensor:
    """Sum over all axes but the stacked ones."""
    return tensor.reshape(*tensor.shape[:axes], -1).sum(axes) if axes else tensor.sum()


def spread(each: Tensor, like: Tensor) -> Tensor:
    """Reshape one value for each stacked tensor so that it broadcasts over them."""
    return each.reshape(each.shape + (1,) * (like.dim() - each.dim()))
