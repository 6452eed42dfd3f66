"""Evaluate one call: the value, the gradients, the diagnostics.

Only the loss's own function is differentiated by autograd. The reduction is linear in the unreduced loss, so
its share of the chain rule is known: it becomes the upstream gradient that the function is differentiated
with. That is faster than a graph of sums and quotients, and an empty mean has zero gradients as a matter of
course.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call, Evaluation
from service.engine.memory import within_memory
from service.engine.stack import Part
from service.engine.transfer import to_device, to_host

Tensors = Mapping[str, Tensor]
CPU = torch.device("cpu")
_ENGINE: Any = vars(torch.autograd.Variable)["_execution_engine"]
"""What `torch.autograd.grad` hands over to, after checks that take longer than the gradient of a small call."""


def evaluate(call: Call, device: torch.device = CPU) -> Evaluation:
    """Compute what a call asks for, on a device; what comes of it is on the CPU.

    Raises:
        TooLarge: it needs more memory than the device has.
    """
    return within_memory(partial(_evaluate, call, device), device)


def _evaluate(call: Call, device: torch.device) -> Evaluation:
    """Compute what a call asks for."""
    leaves = differentiable(to_device(call.inputs, device), call)
    terms = call.loss.terms(leaves, call.params)
    reduced = reduce(call, terms, *options(call, device))
    return Evaluation(*results(call, terms, reduced, leaves))


def differentiable(inputs: Tensors, call: Call) -> dict[str, Tensor]:
    """Return inputs as the leaves of a graph, where the call asks for their gradients."""
    return {
        name: tensor.detach().requires_grad_() if name in call.gradients_of else tensor
        for name, tensor in inputs.items()
    }


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
    wanted = tuple([leaves[name] for name in call.gradients_of])
    loss = reducible(call, terms)
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaves[name]) for name in call.gradients_of}
    found = _ENGINE.run_backward(
        (loss,), (slope,), False, False, wanted, allow_unreachable=True, accumulate_grad=False
    )
    return {
        name: torch.zeros_like(leaves[name]) if gradient is None else gradient
        for name, gradient in zip(call.gradients_of, found, strict=True)
    }


def options(part: Part, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Return the sample weight and the upstream gradient of a call, or of several, on a device."""
    sent = {"weight": part.sample_weight, "upstream": part.grad_output}
    there = to_device({name: tensor for name, tensor in sent.items() if tensor is not None}, device)
    return there.get("weight"), there.get("upstream")


def results(
    call: Call, terms: Terms, reduced: Reduced, leaves: Tensors
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the value, the gradients and the diagnostics on the CPU, rounded to the dtype that is asked for."""
    slopes = gradients(call, terms, reduced.slope, leaves)
    found = (reduced.value, *slopes.values(), *terms.aux.values())
    value, *others = to_host([_rounded(tensor, call.dtype) for tensor in found])
    count = len(slopes)
    return (
        value,
        dict(zip(slopes, others[:count], strict=True)),
        dict(zip(terms.aux, others[count:], strict=True)),
    )


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a floating result."""
    return tensor if tensor.dtype is dtype or not tensor.is_floating_point() else tensor.to(dtype)


def reducible(call: Call, terms: Terms) -> Tensor:
    """Return what the call's reduction is applied to."""
    return terms.loss if call.reduction != "mean" or terms.mean_terms is None else terms.mean_terms


def _divisor(loss: Tensor, divisor: Tensor | None, weight: Tensor | None) -> float:
    """Return what the mean divides by."""
    if divisor is None and weight is None:
        return loss.numel()
    share = torch.ones_like(loss) if divisor is None else divisor.detach()
    return (share if weight is None else share * weight).sum().item()
