"""Evaluate one call: the value, the gradients, the diagnostics."""

from collections.abc import Mapping

import torch
from torch import Tensor

from service.engine.call import Call, Evaluation

Tensors = Mapping[str, Tensor]
CPU = torch.device("cpu")


def evaluate(call: Call, device: torch.device = CPU) -> Evaluation:
    """Compute what a call asks for, on a device; what comes of it is on the CPU."""
    leaves = {
        name: tensor.to(device).detach().requires_grad_(name in call.gradients_of)
        for name, tensor in call.inputs.items()
    }
    weight = None if call.sample_weight is None else call.sample_weight.to(device)
    reduced, aux = value(call, leaves, weight)
    upstream = None if call.grad_output is None else call.grad_output.to(device)
    found = gradients(call, reduced, leaves, upstream)
    return Evaluation(
        finished(call, reduced),
        {name: finished(call, gradient) for name, gradient in found.items()},
        {name: finished(call, tensor) for name, tensor in aux.items()},
    )


def value(call: Call, leaves: Tensors, weight: Tensor | None) -> tuple[Tensor, Tensors]:
    """Return the reduced loss, still attached to ``leaves``, and the diagnostics."""
    terms = call.loss.terms(leaves, call.params)
    if call.reduction == "mean":
        averaged = terms.loss if terms.mean_terms is None else terms.mean_terms
        return _mean(averaged, terms.divisor, weight, call.loss.empty_mean), terms.aux
    loss = terms.loss if weight is None else terms.loss * weight
    return loss.sum() if call.reduction == "sum" else loss, terms.aux


def gradients(call: Call, reduced: Tensor, leaves: Tensors, upstream: Tensor | None) -> Tensors:
    """Differentiate the value with respect to the inputs that the call asks for."""
    wanted = [leaves[name] for name in call.gradients_of]
    if not reduced.requires_grad:
        return {name: torch.zeros_like(leaves[name]) for name in call.gradients_of}
    seed = torch.ones_like(reduced) if upstream is None else upstream
    found = torch.autograd.grad(reduced, wanted, seed, allow_unused=True, materialize_grads=True)
    return dict(zip(call.gradients_of, found, strict=True))


def finished(call: Call, tensor: Tensor) -> Tensor:
    """Detach a result, round it to the dtype asked for and bring it to the CPU."""
    tensor = tensor.detach()
    return (tensor.to(call.dtype) if tensor.is_floating_point() else tensor).cpu()


def _mean(loss: Tensor, divisor: Tensor | None, weight: Tensor | None, empty: float) -> Tensor:
    """Return the weighted mean; where it would divide by zero ``empty``, with zero gradients."""
    if divisor is None and weight is None:
        return loss.sum() / loss.numel()
    share = torch.ones_like(loss) if divisor is None else divisor
    if weight is not None:
        loss, share = loss * weight, share * weight
    total = share.sum()
    # divide by a safe number first: 0 times the infinite slope of x / 0 would make the gradients NaN
    mean = loss.sum() / torch.where(total == 0, 1.0, total)
    return torch.where(total == 0, empty, mean)
