"""Bind a request to its loss's declaration: return a valid call, or report all faults."""

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Facts
from service.engine import check, check_second
from service.engine.call import Call, Request
from service.engine.cost import SECOND
from service.engine.fit import Fit, fit
from service.engine.plan import cast, plan, round_param, rounding, shapes_of
from service.engine.stack import Stack
from service.problems import Fault, Invalid


def bind(request: Request, known: Sequence[Fault] = ()) -> Call:
    """Return the valid call for a request.

    ``known`` are faults found in decoding: the rest of the request is checked all the same, so that the client gets
    all faults together.

    Raises:
        Invalid: with every fault that can be found before the others are corrected.
    """
    sent = {name: sent.tensor for name, sent in request.inputs.items()}
    found = None if known else plan(request)
    if found and (inputs := found.admit(sent)):
        return found.call_of(request, inputs)
    return _bind_in_full(request, known)


def bind_alike(first: Request, stacks: Mapping[str, Tensor]) -> Stack | None:
    """Bind requests that differ from the first only in the values of their inputs, stacked on a new first axis.

    Return None if one of them has a fault, or there is no plan for them.
    """
    found = plan(first)
    inputs = found and found.admit(stacks, stacked=True)
    if not (found and inputs):
        return None
    return Stack(found.call_of(first, {name: stack[0] for name, stack in inputs.items()}), inputs)


def _bind_in_full(request: Request, known: Sequence[Fault]) -> Call:
    """Bind a request without a plan: it has weights, or a fault somewhere."""
    loss, params = request.loss, request.params
    fitted = fit(loss, shapes_of(request.inputs), params)
    # inputs that could not be decoded have their faults already
    undecoded = [n for n in loss.inputs if any(f.pointer.startswith(f"/inputs/{n}") for f in known)]
    present = (*request.inputs, *undecoded)
    gradients_of, faults = check.gradients_of(loss, request.gradients, fitted, present)
    faults = [*known, *faults]
    kinded, wrong_kinds = check.cast_kinds(request, fitted)
    facts = Facts(fitted.sizes, params, kinded)
    faults += [*fitted.faults, *wrong_kinds]
    whole = not faults
    faults += check.divide_by(request)
    faults += check.domains(request, fitted, facts, whole=whole) + check.lists(loss, params, fitted.sizes)
    unreduced = fitted.unreduced
    if whole:
        faults += fitted.size_faults or check.conditions(loss, facts)
        faults += check_second.hessian(request, fitted, gradients_of)
    faults += check_second.tangents(request, fitted, present)
    if unreduced is not None:
        faults += check.result(request, fitted, unreduced)
    if faults or unreduced is None:
        raise Invalid(*faults)
    return _call(request, fitted, unreduced, kinded, gradients_of)


def _call(
    request: Request,
    fitted: Fit,
    unreduced: Shape,
    kinded: Mapping[str, Tensor],
    gradients_of: tuple[str, ...],
) -> Call:
    """Return the call of a valid request, whose inputs have the kinds of their forms."""
    dtype, weight, upstream = request.dtype, request.sample_weight, request.grad_output
    directions = bool(request.tangents) + len(gradients_of) * bool(request.hessian)

    def rounded(name: str, tensor: Tensor) -> Tensor:
        domain = fitted.form(name).domain
        return cast(tensor, rounding(domain, dtype)) if domain.kind == "float" else tensor

    tangents = {name: rounded(name, sent.tensor) for name, sent in request.tangents.items()}
    return Call(
        loss=request.loss,
        inputs={name: rounded(name, tensor) for name, tensor in kinded.items()},
        params={name: round_param(param, dtype) for name, param in request.params.items()},
        work=fitted.work + directions * (SECOND * fitted.work + fitted.twice),
        overhead=fitted.overhead + directions * (SECOND * fitted.overhead),
        gradients_of=gradients_of,
        reduction=request.reduction,
        sample_weight=None if weight is None else _broadcast(cast(weight.tensor, dtype), unreduced),
        grad_output=None
        if upstream is None
        else cast(upstream.tensor, dtype).reshape(check.value_shape(request, unreduced)),
        dtype=dtype,
        divide_by=request.divide_by,
        tangents={name: tensor.reshape(fitted.shapes[name]) for name, tensor in tangents.items()},
        hessian=request.hessian,
    )


def _broadcast(weight: Tensor, unreduced: Shape) -> Tensor:
    """Give a sample weight the rank of the unreduced loss, so that it broadcasts from the left."""
    if weight.numel() == 0 and prod(unreduced) == 0:
        return weight.new_zeros(unreduced)
    return weight.reshape((*weight.shape, *[1] * (len(unreduced) - weight.dim())))
