"""Checks of a request against its loss's declaration; each returns the faults it finds."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import islice
from math import prod
from typing import Any

import torch
from torch import Tensor

from service.catalogue.declaration import AnyDeclaration
from service.catalogue.dims import Shape, Sizes, match, names, show_dims, show_sizes
from service.catalogue.domains import Facts, Kind, show_number
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Form, Input
from service.engine.call import HALF, Request, Sent
from service.engine.fit import Fit
from service.problems import MOST_FAULTS, Fault, pointer, quoted

UNFITTED = 1 << 10
"""Most values of a list param that are checked while its expected length is unknown."""


def gradients_of(
    loss: AnyLoss, asked: bool | tuple[str, ...], fit: Fit, present: Collection[str]
) -> tuple[tuple[str, ...], list[Fault]]:
    """Resolve the ``gradients`` field to names among the inputs that are present."""
    if isinstance(asked, bool):
        sent = (name for name in loss.predictions if name in present)
        return tuple(sent) if asked and loss.differentiable else (), []
    floating = fit.differentiable
    names = f"one of {', '.join(floating)}" if floating else f"no name: {loss.name} has no useful gradient"
    right = [name for name in floating if name in present]
    wrong = ((i, name) for i, name in enumerate(asked) if name not in right)
    faults = [
        Fault(
            pointer("gradients", i),
            "gradient",
            f"Expected {names if name not in floating else 'an input that is sent'}; got {quoted(name)}.",
        )
        for i, name in islice(wrong, MOST_FAULTS)
    ]
    return tuple(dict.fromkeys(name for name in asked if name in right)), faults


def cast_kinds(request: Request, fit: Fit) -> tuple[dict[str, Tensor], list[Fault]]:
    """Convert each matched tensor to the kind of number that its form takes, without losing digits."""
    kinded: dict[str, Tensor] = {}
    faults: list[Fault] = []
    for name, shape in fit.shapes.items():
        sent, kind = request.inputs[name], fit.form(name).domain.kind
        tensor = sent.tensor.reshape(shape) if sent.any_rank else sent.tensor
        if (wrong := not_of_kind(tensor, kind)) is not None:
            words = "integers" if kind == "int" else "true and false, or 1 and 0"
            faults.append(fault_at(("inputs", name), sent, wrong, "kind", words, show_number(tensor[wrong])))
        else:
            kinded[name] = of_kind(tensor, kind)
    # in the order of declaration, because a domain may refer to earlier inputs
    return {name: kinded[name] for name in fit.loss.inputs if name in kinded}, faults


def not_of_kind(tensor: Tensor, kind: Kind) -> tuple[int, ...] | None:
    """Return the index of the first element that is not of a kind."""
    if kind == "float" or tensor.dtype == torch.bool:
        return None
    if kind == "bool":
        return first_of((tensor != 0) & (tensor != 1))
    if not tensor.is_floating_point():
        return None
    return first_of((tensor != tensor.trunc()) | (tensor.abs() >= 2.0**63))


def of_kind(tensor: Tensor, kind: Kind) -> Tensor:
    """Convert a tensor to a kind of number that all of its elements are of."""
    return tensor if kind == "float" else tensor.to(torch.int64 if kind == "int" else torch.bool)


def domains(request: Request, fit: Fit, facts: Facts, *, whole: bool) -> list[Fault]:
    """Return the first element outside its domain for each input that has one.

    Unless the request is ``whole``, with every shape and kind right, a domain may lack inputs that it refers to.
    """
    faults: list[Fault] = []
    for name, tensor in facts.inputs.items():
        form = fit.form(name)
        try:
            if _within(tensor, form, request.loss.inputs[name], facts):
                continue
            right = admitted(name, fit, facts, request.dtype)
        except KeyError:
            if whole:
                raise
            continue
        if (index := first_of(~right)) is not None:
            expected = form.describe() + mentioned_sizes(form, fit.sizes)
            finite = bool(tensor[index].isfinite())
            found = form.domain.found(tensor, index) if finite else show_number(tensor[index])
            faults.append(fault_at(("inputs", name), request.inputs[name], index, "domain", expected, found))
    return faults


def _coarser(sent: torch.dtype, computed: torch.dtype) -> torch.dtype:
    """Return the dtype with fewer digits; integers and booleans count as exact."""
    coarser = sent.is_floating_point and torch.finfo(sent).eps > torch.finfo(computed).eps
    return sent if coarser else computed


def _within(tensor: Tensor, form: Form, spec: Input, facts: Facts) -> bool:
    """Return whether the smallest and largest values prove that all are admitted."""
    if admits_all(form, spec):
        return True
    bounds = form.domain.range(facts)
    return bounds is not None and between(tensor, *bounds)


def admits_all(form: Form, spec: Input) -> bool:
    """Return whether a form admits all values of its kind; floating targets must be finite."""
    return form.domain.unbounded and (spec.role == "prediction" or form.domain.kind != "float")


def between(tensor: Tensor, low: float, high: float) -> bool:
    """Return whether all elements are finite and from ``low`` to ``high``."""
    if not tensor.numel():
        return True
    # NaN fails both comparisons
    least, most = tensor.aminmax()
    first, last = least.item(), most.item()
    return low <= first and last <= high and -math.inf < first and last < math.inf


def admitted(name: str, fit: Fit, facts: Facts, dtype: torch.dtype) -> Tensor:
    """Return a mask of the admitted elements of an input, for a call computed in ``dtype``; also works under vmap.

    NaN passes in predictions, and infinity if the domain is unbounded; targets must be finite.
    """
    tensor, form, spec = facts.inputs[name], fit.form(name), fit.loss.inputs[name]
    values = tensor.float() if tensor.dtype in HALF else tensor
    right = form.domain.admits(values, replace(facts, dtype=_coarser(tensor.dtype, dtype)))
    if values.is_floating_point() and spec.role == "prediction":
        right = right | values.isnan()
    elif values.is_floating_point() and not form.domain.infinite:
        right = right & values.isfinite()
    counted = None if form.where is None else _counted(values, facts.inputs.get(form.where))
    return right if counted is None else right | ~counted


def _counted(values: Tensor, where: Tensor | None) -> Tensor | None:
    """Select the elements inside a mask, or within lengths along the last axis."""
    if where is None:
        return None
    if where.dtype != torch.bool:
        where = torch.arange(values.shape[-1]) < where[..., None]
    return where.reshape((*where.shape, *[1] * (values.dim() - where.dim())))


def mentioned_sizes(form: Form, sizes: Sizes) -> str:
    """Show the sizes of the dimensions that a form's description mentions."""
    words = form.describe().replace(",", " ").split()
    return show_sizes({dim: size for dim, size in sizes.items() if dim in words})


def lists(declared: AnyDeclaration, params: Mapping[str, Any], sizes: Sizes) -> list[Fault]:
    """Check list params: their shape against the inputs' sizes, and their values."""
    faults: list[Fault] = []
    for name, param in declared.params.items():
        if param.values is None or not isinstance(params.get(name), tuple):
            continue
        dims, domain = param.values.dims, param.values.domain
        shape = _shape(params[name])
        if shape is None or match(dims, shape, sizes) is None:
            got = "ragged rows" if shape is None else f"{list(shape)}"
            known = show_sizes({dim: size for dim, size in sizes.items() if dim in names(dims)})
            expected = f"Expected a list of dimensions {show_dims(dims)}{known}; got {got}."
            faults.append(Fault(pointer("params", name), "shape", expected))
            continue
        if prod(shape) > UNFITTED and not {*names(dims)} <= sizes.keys():
            # the expected length is unknown because of other faults; do not check long lists in vain
            continue
        values = torch.tensor(params[name], dtype=torch.float64)
        if (index := first_of(~domain.admits(values, Facts(sizes, params, {})))) is not None:
            detail = f"Expected {domain.describe()}; got {domain.found(values, index)}."
            faults.append(Fault(pointer("params", name, *index), "domain", detail))
    return faults


def _shape(rows: tuple[Any, ...]) -> Shape | None:
    """Return the shape of nested tuples of numbers; None if they are ragged."""
    kinds = set(map(type, rows))
    if tuple not in kinds:
        return (len(rows),)
    lengths = set(map(len, rows)) if len(kinds) == 1 else set[int]()
    return (len(rows), *lengths) if len(lengths) == 1 else None


def conditions(declared: AnyDeclaration, facts: Facts) -> list[Fault]:
    """Check conditions across inputs and params."""
    return [
        Fault(c.pointer, "condition", f"Expected {c.expected}; got {c.got(facts)}.")
        for c in declared.conditions
        if not c.holds(facts)
    ]


def result(request: Request, fit: Fit, unreduced: Shape) -> list[Fault]:
    """Check fields that depend on the shape of the result: the reduction, ``sample_weight`` and ``grad_output``."""
    faults: list[Fault] = []
    if request.reduction == "mean" and prod(unreduced) == 0 and request.divide_by is None:
        name = next(iter(request.loss.inputs))
        detail = f"Expected at least one element under reduction mean; got {list(fit.shapes[name])}."
        faults.append(Fault(pointer("inputs", name), "empty", detail))
    if (weight := request.sample_weight) is not None:
        faults += _check_weight(weight, unreduced)
    if (upstream := request.grad_output) is not None:
        shape = value_shape(request, unreduced)
        if tuple(upstream.tensor.shape) != shape and not (upstream.any_rank and prod(shape) == 0):
            expected = f"Expected the shape of the value, {list(shape)}; got {list(upstream.tensor.shape)}."
            faults.append(Fault("/grad_output", "shape", expected))
    return faults


def divide_by(request: Request) -> list[Fault]:
    """Check that only a mean is divided by a number, and by one that its arithmetic can hold."""
    number = request.divide_by
    if number is None:
        return []
    if request.reduction != "mean":
        detail = f"Expected no divide_by under reduction {request.reduction}; got {number}."
        return [Fault("/divide_by", "reduction", detail)]
    numbers = torch.finfo(torch.float32 if request.dtype in HALF else request.dtype)
    if numbers.tiny <= number <= numbers.max:
        return []
    expected = f"a number from {numbers.tiny:.3g} to {numbers.max:.3g}, the range of {numbers.dtype}"
    return [Fault("/divide_by", "domain", f"Expected {expected}; got {number}.")]


def value_shape(request: Request, unreduced: Shape) -> Shape:
    """Return the shape of the value."""
    return unreduced if request.reduction == "none" else ()


def _check_weight(weight: Sent, unreduced: Shape) -> list[Fault]:
    """Check that a sample weight broadcasts to the unreduced loss from the left, and is finite and >= 0."""
    shape, tensor = tuple(weight.tensor.shape), weight.tensor
    fits = len(shape) <= len(unreduced) and all(s in (1, u) for s, u in zip(shape, unreduced, strict=False))
    if not fits and not (weight.any_rank and prod(unreduced) == 0):
        expected = (
            f"Expected {list(unreduced)}, or a shape that broadcasts to it from the left; got {list(shape)}."
        )
        return [Fault("/sample_weight", "shape", expected)]
    if (index := first_of(~((tensor >= 0) & (tensor.isfinite())))) is None:
        return []
    expected, found = "finite numbers of at least 0", show_number(tensor[index])
    return [fault_at(("sample_weight",), weight, index, "domain", expected, found)]


def first_of(wrong: Tensor) -> tuple[int, ...] | None:
    """Return the index of the first true element, None if there is none."""
    flat = wrong.reshape(-1)
    if not bool(flat.any()):
        return None
    place = int(flat.to(torch.uint8).argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(place), wrong.shape))


def fault_at(
    where: tuple[str, ...], sent: Sent, index: tuple[int, ...], code: str, expected: str, found: str
) -> Fault:
    """Return a fault at one element of a tensor: by its pointer if it has one, else by its index in the sentence."""
    if sent.addressable:
        return Fault(pointer(*where, *index), code, f"Expected {expected}; got {found}.")
    place = f" at {list(index)}" if index else ""
    return Fault(pointer(*where), code, f"Expected {expected}; got {found}{place}.")
