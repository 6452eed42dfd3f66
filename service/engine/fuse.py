"""Evaluate like calls as one: a remote batch should cost no more than a local loop.

Calls of one loss, params, options and shapes are stacked on a new first axis and evaluated under vmap, so
that each gives what it gives alone. What torch has no batching rule for is declared so and loops.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from service.engine.call import Call, Evaluation
from service.engine.evaluate import CPU, evaluate, finished, gradients, value

BUDGET = 1 << 24
"""Most `work` that is stacked at once: what fusing saves is gone long before, and memory is bounded by it."""


def work(call: Call) -> int:
    """Estimate what a call costs: its elements times its longest axis, the most that pairs along one make."""
    return sum(t.numel() * max(t.shape, default=1) for t in call.inputs.values())


def likeness(call: Call) -> Hashable:
    """Return what must be equal for calls to be evaluated together."""
    optional = [t if t is None else tuple(t.shape) for t in (call.sample_weight, call.grad_output)]
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in call.inputs.items())
    params = tuple(call.params.items())
    return (call.loss.name, params, shapes, *optional, call.gradients_of, call.reduction, call.dtype)


def evaluate_many(calls: Sequence[Call], device: torch.device = CPU) -> list[Evaluation | Exception]:
    """Evaluate calls of any kind, like ones together; what fails fails alone."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, call in enumerate(calls):
        groups[likeness(call)].append(place)
    results: list[Evaluation | Exception] = [AssertionError()] * len(calls)
    for places in groups.values():
        for place, result in zip(places, evaluate_alike([calls[p] for p in places], device), strict=True):
            results[place] = result
    return results


def evaluate_alike(calls: Sequence[Call], device: torch.device = CPU) -> list[Evaluation | Exception]:
    """Evaluate calls that are alike, as many at once as the budget allows."""
    at_once = max(1, BUDGET // max(1, work(calls[0])))
    results: list[Evaluation | Exception] = []
    for start in range(0, len(calls), at_once):
        some = calls[start : start + at_once]
        if len(some) == 1 or some[0].loss.fuse == "alone":
            results += [_attempt(call, device) for call in some]
            continue
        try:
            results += evaluate_together(some, device)
        except Exception:
            # one of them, or the loss under vmap: alone, each has what it has
            results += [_attempt(call, device) for call in some]
    return results


def evaluate_together(calls: Sequence[Call], device: torch.device = CPU) -> list[Evaluation]:
    """Evaluate calls that are alike as one call over a new first axis."""
    first = calls[0]
    leaves = {
        name: _stack([call.inputs[name] for call in calls], device).requires_grad_(name in first.gradients_of)
        for name in first.inputs
    }
    weights = None if first.sample_weight is None else _stack([_weight(call) for call in calls], device)

    def one(inputs: Mapping[str, Tensor], weight: Tensor | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        return value(first, inputs, weight)

    in_dims = (0, None if weights is None else 0)
    values, aux = torch.func.vmap(one, in_dims=in_dims)(leaves, weights)
    upstream = None if first.grad_output is None else _stack([_upstream(call) for call in calls], device)
    found = {n: finished(first, t).unbind() for n, t in gradients(first, values, leaves, upstream).items()}
    extras = {name: finished(first, tensor).unbind() for name, tensor in aux.items()}
    return [
        Evaluation(
            alone,
            {name: tensors[place] for name, tensors in found.items()},
            {name: tensors[place] for name, tensors in extras.items()},
        )
        for place, alone in enumerate(finished(first, values).unbind())
    ]


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
