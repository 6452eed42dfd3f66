"""Evaluate one call: value, gradients, diagnostics."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.backward import differentiable, gradients
from service.engine.call import CPU, Call, Evaluation
from service.engine.memory import within_memory
from service.engine.reduce import reduce
from service.engine.removed import removes, without_losses, without_removed
from service.engine.stack import Part, Stack
from service.engine.transfer import to_device, to_host, working_on

Tensors = Mapping[str, Tensor]


def evaluate(call: Call, device: torch.device = CPU) -> Evaluation:
    """Compute a call on a device and return the results on the CPU.

    Raises:
        TooLarge: it does not fit into the device's memory.
    """
    return within_memory(partial(_evaluate, call, device), device)


def _evaluate(call: Call, device: torch.device) -> Evaluation:
    """Compute a call."""

    def compute(inputs: Tensors) -> Terms:
        return call.loss.terms(inputs, call.params)

    return Evaluation(*computed(call, compute, device), device)


def computed(
    part: Part, compute: Callable[[Tensors], Terms], device: torch.device
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return value, gradients and diagnostics of a call, or of several that ``compute`` evaluates as one."""
    with working_on(device):
        return _computed(part, compute, device)


def _computed(
    part: Part, compute: Callable[[Tensors], Terms], device: torch.device
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Evaluate on the current stream."""
    like, axes = part.like, int(isinstance(part, Stack))
    inputs = to_device(part.inputs, device)
    leaves = differentiable(inputs, like)
    terms = compute(leaves)
    weight, upstream = options(part, device)
    removing = removes(part)
    value, slope = reduce(like, without_losses(terms, weight) if removing else terms, weight, upstream, axes)
    found = gradients(like, terms, slope, leaves)
    if removing:
        found = without_removed(like, found, inputs, slope, compute, axes=axes)
    return on_host(like, value, found, terms.aux)


def options(part: Part, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Return the sample weight and the upstream gradient of a part, on a device."""
    if part.sample_weight is None and part.grad_output is None:
        return None, None
    sent = {"weight": part.sample_weight, "upstream": part.grad_output}
    there = to_device({name: tensor for name, tensor in sent.items() if tensor is not None}, device)
    return there.get("weight"), there.get("upstream")


def on_host(
    call: Call, value: Tensor, slopes: Tensors, aux: Tensors
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return value, gradients and diagnostics on the CPU, rounded to the requested dtype."""
    found = (value, *slopes.values(), *aux.values())
    value, *others = to_host([_rounded(tensor, call.dtype) for tensor in found])
    count = len(slopes)
    return (
        value,
        dict(zip(slopes, others[:count], strict=True)),
        dict(zip(aux, others[count:], strict=True)),
    )


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a floating result."""
    return tensor if tensor.dtype is dtype or not tensor.is_floating_point() else tensor.to(dtype)
