"""Evaluate one call: the value, the gradients, the diagnostics.

Only the loss's own function is differentiated by autograd. The reduction is linear in the unreduced loss, so
its share of the chain rule is known: it becomes the upstream gradient that the function is differentiated
with. That is faster than a graph of sums and quotients, and an empty mean has zero gradients as a matter of
course.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call, Evaluation
from service.engine.memory import within_memory

Tensors = Mapping[str, Tensor]
CPU = torch.device("cpu")


def evaluate(call: Call, device: torch.device = CPU) -> Evaluation:
    """Compute what a call asks for, on a device; what comes of it is on the CPU.

    Raises:
        TooLarge: it needs more memory than the device has.
    """
    with within_memory(device):
        return _evaluate(call, device)


def _evaluate(call: Call, device: torch.device) -> Evaluation:
    """Compute a call, with whatever torch raises."""
    leaves = {
        name: tensor.to(device).detach().requires_grad_(name in call.gradients_of)
        for name, tensor in call.inputs.items()
    }
    terms = call.loss.terms(leaves, call.params)
    weight, upstream = (t if t is None else t.to(device) for t in (call.sample_weight, call.grad_output))
    reduced = reduce(call, terms, weight, upstream)
    found = gradients(call, terms, reduced.slope, leaves)
    return Evaluation(
        finished(call, reduced.value),
        {name: finished(call, gradient) for name, gradient in found.items()},
        {name: finished(call, tensor) for name, tensor in terms.aux.items()},
    )


class Reduced(NamedTuple):
    """A value, and its derivative with respect to what was reduced."""

    value: Tensor
    slope: Tensor


def reduce(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None) -> Reduced:
    """Reduce an unreduced loss."""
    loss = reducible(call, terms).detach()
    weighted = loss if weight is None else loss * weight
    value, total = weighted, 1.0
    if call.reduction != "none":
        value = weighted.sum()
    if call.reduction == "mean":
        total = _divisor(loss, terms.divisor, weight)
        value = value / total if total else torch.full_like(value, call.loss.empty_mean)
    # divided by infinity, an empty mean has no slope
    share = total or math.inf
    slope = torch.full_like(loss, 1 / share) if weight is None else (weight / share).expand_as(loss)
    return Reduced(value, slope if upstream is None else slope * upstream)


def gradients(call: Call, terms: Terms, slope: Tensor, leaves: Tensors) -> Tensors:
    """Differentiate with respect to the inputs that the call asks for."""
    wanted = [leaves[name] for name in call.gradients_of]
    loss = reducible(call, terms)
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaves[name]) for name in call.gradients_of}
    found = torch.autograd.grad(loss, wanted, slope, allow_unused=True, materialize_grads=True)
    return dict(zip(call.gradients_of, found, strict=True))


def finished(call: Call, tensor: Tensor) -> Tensor:
    """Detach a result, round it to the dtype asked for and bring it to the CPU."""
    tensor = tensor.detach()
    return (tensor.to(call.dtype) if tensor.is_floating_point() else tensor).cpu()


def reducible(call: Call, terms: Terms) -> Tensor:
    """Return what the call's reduction is applied to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _divisor(loss: Tensor, divisor: Tensor | None, weight: Tensor | None) -> float:
    """Return what the mean divides by."""
    if divisor is None and weight is None:
        return loss.numel()
    share = torch.ones_like(loss) if divisor is None else divisor.detach()
    return (share if weight is None else share * weight).sum().item()
