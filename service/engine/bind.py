"""Check a request against its loss's declaration, and cast its tensors to what the arithmetic runs in."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from math import prod
from typing import Any

import torch
from torch import Tensor

from service.catalogue.dims import Shape, Sizes, match, names, show, show_sizes
from service.catalogue.domains import Facts, Kind, Real, show_number
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Form, Input
from service.engine.call import HALF, Call, Request, Sent
from service.engine.fit import Fit
from service.engine.fit import fit as fit_shapes
from service.problems import MOST_FAULTS, Fault, Invalid, pointer, quoted


def bind(request: Request, known: Sequence[Fault] = ()) -> Call:
    """Return the valid call that a request makes.

    ``known`` are faults that decoding has found: what is left of the request is checked all the same, so that
    a client hears of all faults together.

    Raises:
        Invalid: with every fault that can be told without the ones before it being mended.
    """
    fit = fit_shapes(request.loss, request.inputs, request.params)
    gradients_of, faults = _gradients_of(request, fit, known)
    faults = [*known, *faults]
    kinded, wrong_kinds = _cast_kinds(request, fit)
    facts = Facts(fit.sizes, request.params, kinded)
    faults += [*fit.faults, *wrong_kinds]
    whole = not faults
    faults += _check_domains(request, fit, facts, whole=whole) + _check_lists(request, fit.sizes)
    unreduced = fit.unreduced
    if whole:
        faults += fit.size_faults or _check_conditions(request.loss, facts)
    if unreduced is not None:
        faults += _check_result(request, fit, unreduced)
    if faults or unreduced is None:
        raise Invalid(*faults)
    weight, upstream = request.sample_weight, request.grad_output
    return Call(
        loss=request.loss,
        inputs={
            name: _cast(tensor, request.dtype) if fit.form(name).domain.kind == "float" else tensor
            for name, tensor in kinded.items()
        },
        params={name: _round(param, request.dtype) for name, param in request.params.items()},
        gradients_of=gradients_of,
        reduction=request.reduction,
        sample_weight=None if weight is None else _broadcast(_cast(weight.tensor, request.dtype), unreduced),
        grad_output=None
        if upstream is None
        else _cast(upstream.tensor, request.dtype).reshape(_value_shape(request, unreduced)),
        dtype=request.dtype,
    )


def bind_alike(requests: Sequence[Request]) -> list[Call] | None:
    """Bind requests that differ in the values of their inputs alone, all at once; None where that cannot be.

    It cannot where a look at all values together leaves open whether each is admitted.
    """
    first, loss = requests[0], requests[0].loss
    if loss.conditions or first.sample_weight or first.grad_output:
        return None
    try:
        call = bind(first)
    except Invalid:
        return None
    fit = fit_shapes(loss, first.inputs, first.params)
    facts = Facts(fit.sizes, first.params, {})
    stacks: dict[str, tuple[Tensor, ...]] = {}
    for name, tensor in call.inputs.items():
        form = fit.form(name)
        values = torch.stack([request.inputs[name].tensor for request in requests])
        if _not_of_kind(values, form.domain.kind) is not None:
            return None
        if not _within(values, form, loss.inputs[name], facts):
            return None
        kinded = _cast(values, first.dtype) if form.domain.kind == "float" else values.to(tensor.dtype)
        stacks[name] = kinded.unbind()
    rows = zip(*stacks.values(), strict=True)
    return [replace(call, inputs=dict(zip(stacks, row, strict=True))) for row in rows]


def _gradients_of(request: Request, fit: Fit, known: Sequence[Fault]) -> tuple[tuple[str, ...], list[Fault]]:
    """Resolve the ``gradients`` field to input names."""
    loss, asked = request.loss, request.gradients
    if isinstance(asked, bool):
        sent = (name for name in loss.predictions if name in request.inputs)
        return tuple(sent) if asked and loss.differentiable else (), []
    floating = [name for name in loss.inputs if fit.floating(name)] if loss.differentiable else []
    names = f"one of {', '.join(floating)}" if floating else f"no name: {loss.name} has no useful gradient"
    # what could not be decoded is told of already
    undecoded = {name for name in loss.inputs if any(f.pointer.startswith(f"/inputs/{name}") for f in known)}
    present = request.inputs.keys() | undecoded
    wrong = ((i, name) for i, name in enumerate(asked) if name not in floating or name not in present)
    faults = [
        Fault(
            pointer("gradients", i),
            "gradient",
            f"Expected {names if name not in floating else 'an input that is sent'}; got {quoted(name)}.",
        )
        for i, name in islice(wrong, MOST_FAULTS)
    ]
    return tuple(dict.fromkeys(asked)), faults


def _cast_kinds(request: Request, fit: Fit) -> tuple[dict[str, Tensor], list[Fault]]:
    """Read each matched tensor as the kind of number its form wants, with all digits it was sent with."""
    kinded: dict[str, Tensor] = {}
    faults: list[Fault] = []
    for name, shape in fit.shapes.items():
        sent, kind = request.inputs[name], fit.form(name).domain.kind
        tensor = sent.tensor.reshape(shape) if sent.any_rank else sent.tensor
        if (wrong := _not_of_kind(tensor, kind)) is not None:
            words = "integers" if kind == "int" else "true and false, or 1 and 0"
            faults.append(_fault_at(name, sent, wrong, "kind", words, show_number(tensor[wrong])))
        else:
            kinded[name] = (
                tensor.to(torch.int64 if kind == "int" else torch.bool) if kind != "float" else tensor
            )
    # in the order of the declaration, so that a domain may look at what stands before it
    return {name: kinded[name] for name in fit.loss.inputs if name in kinded}, faults


def _not_of_kind(tensor: Tensor, kind: Kind) -> tuple[int, ...] | None:
    """Return the place of the first element that is not of a kind."""
    if kind == "float" or tensor.dtype == torch.bool:
        return None
    if kind == "bool":
        return _first((tensor != 0) & (tensor != 1))
    if not tensor.is_floating_point():
        return None
    return _first((tensor != tensor.trunc()) | (tensor.abs() >= 2.0**63))


def _check_domains(request: Request, fit: Fit, facts: Facts, *, whole: bool) -> list[Fault]:
    """Return one fault for each input that holds something outside its domain: the first such element.

    Unless the request is ``whole``, with every shape and kind right, a domain may miss what it looks at.
    """
    faults: list[Fault] = []
    for name, tensor in facts.inputs.items():
        form = fit.form(name)
        try:
            if _within(tensor, form, request.loss.inputs[name], facts):
                continue
            admitted = _admitted(tensor, form, request.loss.inputs[name], facts)
        except KeyError:
            if whole:
                raise
            continue
        if (index := _first(~admitted)) is not None:
            expected = form.describe() + show_sizes(
                {dim: fit.sizes[dim] for dim in _mentioned(form, fit.sizes)}
            )
            finite = bool(tensor[index].isfinite())
            found = form.domain.found(tensor, index) if finite else show_number(tensor[index])
            faults.append(_fault_at(name, request.inputs[name], index, "domain", expected, found))
    return faults


def _within(tensor: Tensor, form: Form, spec: Input, facts: Facts) -> bool:
    """Tell whether a look at the least and the greatest value shows that all are admitted."""
    if spec.role == "prediction" and isinstance(form.domain, Real):
        return True
    bounds = form.domain.range(facts)
    if bounds is None or not tensor.numel() or tensor.dtype == torch.bool:
        return False
    # NaN is neither within nor without
    least, most = (value.item() for value in tensor.aminmax())
    finite = not tensor.is_floating_point() or (math.isfinite(least) and math.isfinite(most))
    return bounds[0] <= least and most <= bounds[1] and finite


def _admitted(tensor: Tensor, form: Form, spec: Input, facts: Facts) -> Tensor:
    """Return where a tensor holds what it may.

    NaN passes in predictions, as infinity does where the domain has no end; targets are finite.
    """
    values = tensor.float() if tensor.dtype in HALF else tensor
    admitted = form.domain.admits(values, facts)
    if values.is_floating_point() and spec.role == "prediction":
        admitted = admitted | values.isnan()
    elif values.is_floating_point() and not form.domain.infinite:
        admitted = admitted & values.isfinite()
    counted = None if form.where is None else _counted(values, facts.inputs.get(form.where))
    return admitted if counted is None else admitted | ~counted


def _counted(values: Tensor, where: Tensor | None) -> Tensor | None:
    """Return which elements a mask, or lengths along the last axis, leave in."""
    if where is None:
        return None
    if where.dtype != torch.bool:
        where = torch.arange(values.shape[-1]) < where[..., None]
    return where.reshape((*where.shape, *[1] * (values.dim() - where.dim())))


def _mentioned(form: Form, sizes: Sizes) -> list[str]:
    """Return the dimensions whose sizes a form's description speaks of."""
    words = form.describe().replace(",", " ").split()
    return [dim for dim in sizes if dim in words]


def _check_lists(request: Request, sizes: Sizes) -> list[Fault]:
    """Check the params that are lists of numbers: their shape by the inputs' sizes, their values."""
    faults: list[Fault] = []
    for name, param in request.loss.params.items():
        if param.values is None or not isinstance(request.params.get(name), tuple):
            continue
        dims, domain = param.values.dims, param.values.domain
        values = _rectangular(request.params[name])
        if values is None or match(dims, values.shape, sizes) is None:
            got = "ragged rows" if values is None else f"{list(values.shape)}"
            known = show_sizes({dim: size for dim, size in sizes.items() if dim in names(dims)})
            expected = f"Expected a list of dimensions {show(dims)}{known}; got {got}."
            faults.append(Fault(pointer("params", name), "shape", expected))
        elif (index := _first(~domain.admits(values, Facts(sizes, request.params, {})))) is not None:
            detail = f"Expected {domain.describe()}; got {domain.found(values, index)}."
            faults.append(Fault(pointer("params", name, *index), "domain", detail))
    return faults


def _rectangular(rows: Any) -> Tensor | None:
    """Return nested tuples as a tensor, None where they are ragged."""
    try:
        return torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError):
        return None


def _check_conditions(loss: AnyLoss, facts: Facts) -> list[Fault]:
    """Check what must hold across inputs and params."""
    return [
        Fault(c.pointer, "condition", f"Expected {c.expected}; got {c.got(facts)}.")
        for c in loss.conditions
        if not c.holds(facts)
    ]


def _check_result(request: Request, fit: Fit, unreduced: Shape) -> list[Fault]:
    """Check what depends on the shape of the result: the reduction, ``sample_weight``, ``grad_output``."""
    faults: list[Fault] = []
    if request.reduction == "mean" and prod(unreduced) == 0:
        name = next(iter(request.loss.inputs))
        detail = f"Expected at least one element under reduction mean; got {list(fit.shapes[name])}."
        faults.append(Fault(pointer("inputs", name), "empty", detail))
    if (weight := request.sample_weight) is not None:
        faults += _check_weight(weight, unreduced)
    if (upstream := request.grad_output) is not None:
        shape = _value_shape(request, unreduced)
        if tuple(upstream.tensor.shape) != shape and not (upstream.any_rank and prod(shape) == 0):
            expected = f"Expected the shape of the value, {list(shape)}; got {list(upstream.tensor.shape)}."
            faults.append(Fault("/grad_output", "shape", expected))
    return faults


def _value_shape(request: Request, unreduced: Shape) -> Shape:
    """Return the shape that the value will have."""
    return unreduced if request.reduction == "none" else ()


def _check_weight(weight: Sent, unreduced: Shape) -> list[Fault]:
    """Check that a sample weight broadcasts to the unreduced loss from the left, and is finite and >= 0."""
    shape, tensor = tuple(weight.tensor.shape), weight.tensor
    fits = len(shape) <= len(unreduced) and all(s in (1, u) for s, u in zip(shape, unreduced, strict=False))
    if not fits and not (weight.any_rank and prod(unreduced) == 0):
        expected = f"Expected {list(unreduced)}, or what broadcasts to it from the left; got {list(shape)}."
        return [Fault("/sample_weight", "shape", expected)]
    if (index := _first(~((tensor >= 0) & (tensor.isfinite())))) is None:
        return []
    expected, found = "finite numbers of at least 0", show_number(tensor[index])
    return [_fault_at(None, weight, index, "domain", expected, found)]


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a floating input to the dtype asked for, and carry half types in float32."""
    return tensor.to(dtype).float() if dtype in HALF else tensor.to(dtype)


def _round(param: Any, dtype: torch.dtype) -> Any:
    """Let a param beyond the dtype of the arithmetic be infinite, as elements of tensors are."""
    most = torch.finfo(torch.float32 if dtype in HALF else dtype).max
    return math.copysign(math.inf, param) if isinstance(param, float) and abs(param) > most else param


def _broadcast(weight: Tensor, unreduced: Shape) -> Tensor:
    """Give a sample weight the rank of the unreduced loss, so that it broadcasts from the left."""
    if weight.numel() == 0 and prod(unreduced) == 0:
        return weight.new_zeros(unreduced)
    return weight.reshape((*weight.shape, *[1] * (len(unreduced) - weight.dim())))


def _first(wrong: Tensor) -> tuple[int, ...] | None:
    """Return the index of the first true element, None where there is none."""
    flat = wrong.reshape(-1)
    if not bool(flat.any()):
        return None
    place = int(flat.to(torch.uint8).argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(place), wrong.shape))


def _fault_at(
    name: str | None, sent: Sent, index: tuple[int, ...], code: str, expected: str, found: str
) -> Fault:
    """Return a fault at one element: by its pointer if it has one, else by its index in the sentence."""
    where = ("inputs", name) if name else ("sample_weight",)
    if sent.addressable:
        return Fault(pointer(*where, *index), code, f"Expected {expected}; got {found}.")
    place = f" at {list(index)}" if index else ""
    return Fault(pointer(*where), code, f"Expected {expected}; got {found}{place}.")
