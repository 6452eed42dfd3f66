"""Evaluate one call, or several stacked ones: value, gradients, diagnostics."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.catalogue.rounds import Abandoned, go_on
from service.engine import memory
from service.engine.backward import gradients
from service.engine.call import CPU, Call, Evaluation
from service.engine.cost import FUSED
from service.engine.cut import cut
from service.engine.reduce import reduce, reducible
from service.engine.removed import removes, without_losses, without_removed
from service.engine.second import second
from service.engine.stack import Part, Stack
from service.engine.transfer import moved, to_host, working_on

Tensors = Mapping[str, Tensor]


def evaluate(call: Call, device: torch.device = CPU) -> Evaluation:
    """Compute a call on a device and return the results on the CPU; if memory runs out, free the cached and try again.

    Raises:
        TooLarge: it does not fit even so; states the size of the allocation and the free memory.
        Invalid: a param is so large or small that arithmetic on it in Python overflows float64.
    """
    compute = partial(call.loss.terms, params=call.params)
    try:
        return cut(call, computed(call, compute, device))
    except memory.FAILURES as error:
        memory.raise_unless_exhausted(error)
    # past the handler, nothing references the tensors of the first attempt
    memory.give_back_memory()
    try:
        return cut(call, computed(call, compute, device))
    except memory.FAILURES as error:
        memory.raise_unless_exhausted(error)
        raise memory.does_not_fit(str(error), device) from None


def attempt(call: Call, device: torch.device = CPU) -> Evaluation | Exception:
    """Evaluate a call; return the exception if it raises one, unless nobody waits any longer."""
    try:
        return evaluate(call, device)
    except Abandoned:
        raise
    except Exception as error:
        return error


def computed(part: Part, compute: Callable[[Tensors], Terms], device: torch.device) -> Evaluation:
    """Return the results of a call, or of several that ``compute`` evaluates as one, on the CPU."""
    # asked here, because the answer of a device would have to be waited for
    removing = part.sample_weight is not None and removes(part.sample_weight)
    if device.type == "cpu":
        return _all(part, compute, removing)
    with working_on(device):
        return _on_host(_all(moved(part, device), compute, removing), device)


def _all(part: Part, compute: Callable[[Tensors], Terms], removing: bool) -> Evaluation:
    """Evaluate where the inputs are, with second derivatives if a call asks for them. ``removing``: some weights are 0."""
    found = _computed(part, compute, removing)
    if not (part.tangents or part.like.hessian):
        return found
    tangent, product, diagonal = second(part, compute, removing)
    return found._replace(tangent=tangent, hessian_product=product, hessian=diagonal)


def _computed(part: Part, compute: Callable[[Tensors], Terms], removing: bool) -> Evaluation:
    """Return value, gradients, diagnostics and divisor, rounded to the requested dtype."""
    like, axes = (part.like, 1) if isinstance(part, Stack) else (part, 0)
    weight, upstream = part.sample_weight, part.grad_output
    leaves = {**part.inputs}
    for name in like.gradients_of:
        leaves[name] = leaves[name].detach().requires_grad_()
    terms = compute(leaves)
    loss = reducible(like, terms)
    counted = without_losses(terms, weight) if removing else terms
    value, slope, divisor = reduce(like, counted, weight, upstream, axes)
    if like.work > FUSED:
        go_on()
    found = gradients(like, loss, slope, leaves)
    if removing:
        found = without_removed(like, found, part.inputs, slope, compute, axes=axes)
    return Evaluation(
        _rounded(value, like.dtype),
        {name: _rounded(tensor, like.dtype) for name, tensor in found.items()},
        {name: _rounded(tensor, like.dtype) for name, tensor in terms.aux.items()},
        _as_tensor(divisor, value.shape),
    )


def _as_tensor(divisor: Tensor | float | None, shape: torch.Size) -> Tensor | None:
    """Return a divisor as a tensor in float64; on a device it keeps its dtype, because not all devices have float64."""
    if isinstance(divisor, Tensor):
        return divisor.double() if divisor.is_cpu else divisor
    return None if divisor is None else torch.full(shape, divisor, dtype=torch.float64)


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a floating result."""
    return tensor if tensor.dtype is dtype or not tensor.is_floating_point() else tensor.to(dtype)


def _on_host(found: Evaluation, device: torch.device) -> Evaluation:
    """Return results on the CPU, which a device has computed."""
    kinds = (found.gradients, found.aux, found.hessian_product, found.hessian)
    named = [tensor for kind in kinds for tensor in kind.values()]
    divisor, tangent = found.divisor, found.tangent
    # a divisor that is the same for all calls was never away
    away = {"divisor": divisor, "tangent": tangent}
    away = {name: one for name, one in away.items() if one is not None and not one.is_cpu}
    there = iter(to_host((found.value, *named, *away.values())))
    value = next(there)
    gradients, aux, product, diagonal = [{name: next(there) for name in kind} for kind in kinds]
    if "divisor" in away:
        divisor = next(there).double()
    if "tangent" in away:
        tangent = next(there)
    return Evaluation(value, gradients, aux, divisor, device, tangent, product, diagonal)
