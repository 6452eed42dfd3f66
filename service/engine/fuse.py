"""Evaluate like calls as one: a remote batch should cost no more than a local loop.

Calls of one loss, params, options and shapes are stacked on a new first axis and evaluated under vmap, so
that each gives what it gives alone. What torch has no batching rule for is declared so and loops.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.call import Call, Evaluation
from service.engine.evaluate import CPU, Reduced, evaluate, finished, gradients, reducible

logger = logging.getLogger("lossd")


def work(call: Call) -> int:
    """Estimate what a call costs: its elements times its longest axis, the most that pairs along one make."""
    return sum(t.numel() * max(t.shape, default=1) for t in call.inputs.values())


def likeness(call: Call) -> Hashable:
    """Return what must be equal for calls to be evaluated together."""
    optional = [t if t is None else tuple(t.shape) for t in (call.sample_weight, call.grad_output)]
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in call.inputs.items())
    params = tuple(call.params.items())
    return (call.loss.name, params, shapes, *optional, call.gradients_of, call.reduction, call.dtype)


def evaluate_alike(calls: Sequence[Call], device: torch.device = CPU) -> list[Evaluation | Exception]:
    """Evaluate calls that are alike; what fails fails alone. How many at once is the caller's to bound."""
    if len(calls) > 1 and calls[0].loss.fuse != "alone":
        try:
            return [*evaluate_together(calls, device)]
        except Exception as error:
            # one of them, or the loss under vmap: alone, each has what it has
            logger.debug("%s calls of %s are computed alone: %s", len(calls), calls[0].loss.name, error)
    return [_attempt(call, device) for call in calls]


def evaluate_together(calls: Sequence[Call], device: torch.device = CPU) -> list[Evaluation]:
    """Evaluate calls that are alike as one call over a new first axis."""
    first = calls[0]
    leaves = {
        name: _stack([call.inputs[name] for call in calls], device).requires_grad_(name in first.gradients_of)
        for name in first.inputs
    }

    def parts(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        # vmap takes tensors only, no None
        terms = first.loss.terms(inputs, first.params)
        return {name: part for name, part in terms._asdict().items() if part is not None}

    found = torch.func.vmap(parts)(leaves)
    terms = Terms(found["loss"], found.get("divisor"), found.get("mean_terms"), found["aux"])
    weight = None if first.sample_weight is None else _stack([_weight(call) for call in calls], device)
    upstream = None if first.grad_output is None else _stack([_upstream(call) for call in calls], device)
    reduced = _reduce_each(first, terms, weight, upstream)
    slopes = gradients(first, terms, reduced.slope, leaves)
    gradients_of = {name: finished(first, tensor).unbind() for name, tensor in slopes.items()}
    aux = {name: finished(first, tensor).unbind() for name, tensor in terms.aux.items()}
    return [
        Evaluation(
            value,
            {name: tensors[place] for name, tensors in gradients_of.items()},
            {name: tensors[place] for name, tensors in aux.items()},
        )
        for place, value in enumerate(finished(first, reduced.value).unbind())
    ]


def _reduce_each(call: Call, terms: Terms, weight: Tensor | None, upstream: Tensor | None) -> Reduced:
    """Reduce losses that are stacked along a first axis, each by itself, as `evaluate.reduce` does one."""
    loss = reducible(call, terms).detach()
    value = loss if weight is None else loss * weight
    slope = torch.ones_like(loss) if weight is None else weight.expand_as(loss)
    if call.reduction == "mean":
        total = _sum_each(slope if terms.divisor is None else slope * terms.divisor.detach())
        # divided by infinity, an empty mean has no slope
        safe = torch.where(total == 0, torch.inf, total)
        slope = slope / _spread(safe, slope)
        value = torch.where(total == 0, call.loss.empty_mean, _sum_each(value) / safe)
    elif call.reduction == "sum":
        value = _sum_each(value)
    return Reduced(value, slope if upstream is None else slope * _spread(upstream, slope))


def _sum_each(tensor: Tensor) -> Tensor:
    """Sum each of several stacked tensors."""
    return tensor.reshape(len(tensor), -1).sum(1)


def _spread(each: Tensor, like: Tensor) -> Tensor:
    """Give what there is one of for each stacked tensor the rank of what it is multiplied with."""
    return each.reshape(each.shape + (1,) * (like.dim() - each.dim()))


def _attempt(call: Call, device: torch.device) -> Evaluation | Exception:
    """Evaluate one call; return what it raises."""
    try:
        return evaluate(call, device)
    except Exception as error:
        return error


def _stack(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stack tensors on a new first axis, on the device."""
    return torch.stack(list(tensors)).to(device)


def _weight(call: Call) -> Tensor:
    """Return the sample weight of a call that has one."""
    assert call.sample_weight is not None
    return call.sample_weight


def _upstream(call: Call) -> Tensor:
    """Return the upstream gradient of a call that has one."""
    assert call.grad_output is not None
    return call.grad_output
