"""Evaluate one call: the value, the gradients, the diagnostics."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.backward import differentiate
from service.engine.call import Call, Evaluation
from service.engine.memory import within_memory
from service.engine.reduce import Reduced, reduce, reducible
from service.engine.stack import Part
from service.engine.transfer import to_device, to_host

Tensors = Mapping[str, Tensor]
CPU = torch.device("cpu")


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


def gradients(call: Call, terms: Terms, slope: Tensor, leaves: Tensors) -> Tensors:
    """Differentiate with respect to the inputs that the call asks for."""
    wanted = tuple([leaves[name] for name in call.gradients_of])
    loss = reducible(call, terms)
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaves[name]) for name in call.gradients_of}
    found = differentiate(loss, slope, wanted)
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
