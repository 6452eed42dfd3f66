"""Evaluate one call, or several like ones as one: value, gradients and diagnostics."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from service.engine.call import Call, Evaluation
from service.engine.memory import within_memory

Leaves = Mapping[str, Tensor]
CPU = torch.device("cpu")


def evaluate(call: Call, device: torch.device = CPU) -> Evaluation:
    """Compute the value, the gradients and the diagnostics of one call.

    Raises:
        TooLarge: it needs more memory than the device has.
    """
    with within_memory(device):
        leaves = {
            name: tensor.to(device).detach().requires_grad_(name in call.gradients_of)
            for name, tensor in call.inputs.items()
        }
        value, aux = _value(call, leaves)
        gradients = _gradients(call, value, leaves, call.grad_output)
        return _finish(call, value, gradients, aux)


def evaluate_together(calls: Sequence[Call], device: torch.device = CPU) -> list[Evaluation]:
    """Compute calls that differ only in their tensors' values as one call over a new first dimension.

    All must have the same loss, params, options and shapes, and no upstream gradient of their own.
    """
    first = calls[0]
    stacked = {name: torch.stack([call.inputs[name] for call in calls]).to(device) for name in first.inputs}
    leaves = {name: t.detach().requires_grad_(name in first.gradients_of) for name, t in stacked.items()}

    def value(inputs: Leaves) -> tuple[Tensor, Leaves]:
        return _value(first, inputs)

    values, aux = torch.func.vmap(value)(leaves)
    gradients = _gradients(first, values, leaves, None)
    return [
        _finish(call, values[i], {n: g[i] for n, g in gradients.items()}, {n: a[i] for n, a in aux.items()})
        for i, call in enumerate(calls)
    ]


def _value(call: Call, leaves: Leaves) -> tuple[Tensor, Leaves]:
    """Return the reduced loss, still attached to ``leaves``, and the diagnostics."""
    terms = call.loss.terms(leaves, call.params)
    loss, weight = terms.loss, call.sample_weight
    if call.reduction == "mean":
        averaged = loss if terms.mean_terms is None else terms.mean_terms
        empty = next((o.empty for o in call.loss.outputs.values() if o.role == "divisor"), 0.0)
        return _mean(averaged, terms.divisor, weight, empty), terms.aux
    if weight is not None:
        loss = loss * weight.to(loss.device)
    return loss.sum() if call.reduction == "sum" else loss, terms.aux


def _mean(loss: Tensor, divisor: Tensor | None, weight: Tensor | None, empty: float) -> Tensor:
    """Return the weighted mean; where it would divide by zero ``empty``, with zero gradients."""
    if divisor is None and weight is None:
        return loss.sum() / loss.numel()
    share = torch.ones_like(loss) if divisor is None else divisor
    if weight is not None:
        weight = weight.to(loss.device)
        loss, share = loss * weight, share * weight
    total = share.sum()
    # divide by a safe number first: 0 times the infinite slope of x / 0 would make the gradients NaN
    mean = loss.sum() / torch.where(total == 0, 1.0, total)
    return torch.where(total == 0, empty, mean)


def _gradients(call: Call, value: Tensor, leaves: Leaves, upstream: Tensor | None) -> dict[str, Tensor]:
    """Differentiate ``value`` with respect to the inputs that the call asks for."""
    if not call.gradients_of:
        return {}
    wanted = [leaves[name] for name in call.gradients_of]
    if not value.requires_grad:
        return {name: torch.zeros_like(leaves[name]) for name in call.gradients_of}
    seed = torch.ones_like(value) if upstream is None else upstream.to(value.device)
    found = torch.autograd.grad(value, wanted, seed, allow_unused=True, materialize_grads=True)
    return dict(zip(call.gradients_of, found, strict=True))


def _finish(call: Call, value: Tensor, gradients: Leaves, aux: Leaves) -> Evaluation:
    """Detach the results, round them to the dtype asked for and bring them to the CPU."""

    def done(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return (tensor.to(call.dtype) if tensor.is_floating_point() else tensor).cpu()

    return Evaluation(
        done(value),
        {name: done(gradient) for name, gradient in gradients.items()},
        {name: done(tensor) for name, tensor in aux.items()},
    )
