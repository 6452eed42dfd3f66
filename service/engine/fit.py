"""Match the shapes of a request's tensors with the forms declared by its loss.

Results that depend on shapes alone are cached by shape, because pipelines send the same ones again and again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from service.catalogue.declaration import AnyDeclaration
from service.catalogue.dims import Shape, Sizes, expand, match, match_empty, names, show_dims, show_sizes
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Form, SizeRange
from service.problems import Fault, pointer

Shapes = tuple[tuple[str, Shape | None], ...]
"""The shape of each input sent; None for a JSON ``[]``, which has any rank."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The match between the shapes sent and one row of forms.

    ``unreduced`` is the shape of the unreduced loss, None if an input is missing or does not fit; ``work`` is the
    estimated number of elements of work, ``overhead`` the part of it that fused calls share, ``twice`` the work of second
    derivatives beyond a multiple of both.
    """

    loss: AnyLoss
    row: int
    sizes: Sizes
    shapes: Mapping[str, Shape]
    faults: tuple[Fault, ...]
    unreduced: Shape | None = None
    size_faults: tuple[Fault, ...] = ()
    work: int = 0
    overhead: int = 0
    twice: int = 0

    def form(self, name: str) -> Form:
        """Return the form of an input."""
        return self.loss.inputs[name].form(self.row)

    @property
    def differentiable(self) -> Sequence[str]:
        """The inputs that have a gradient, if the loss has one."""
        return [name for name in self.loss.inputs if self.floating(name)] if self.loss.differentiable else []

    def floating(self, name: str) -> bool:
        """Whether an input is differentiable: targets may be indices or probabilities."""
        return self.loss.inputs[name].floating if self.faults else self.form(name).domain.kind == "float"


def fit(loss: AnyLoss, shapes: Shapes, params: Mapping[str, Any]) -> Fit:
    """Return the first row of forms that fits all inputs together, else the one with the fewest faults."""
    telling = tuple(params.items()) if loss.conditional else ()
    # a client's lists may have any length, so they are not cached
    listed = any(isinstance(param, tuple) for _, param in telling)
    return (_fit.__wrapped__ if listed else _fit)(loss, shapes, telling)


@lru_cache(maxsize=4096)
def _fit(loss: AnyLoss, shapes: Shapes, params: tuple[tuple[str, Any], ...]) -> Fit:
    """Fit shapes; ``params`` holds only those that forms or the work depend on."""
    # if no form applies to these params, a condition refuses them
    rows = loss.rows_for(dict(params)) or [0]
    fits: list[Fit] = []
    for row in rows:
        fits.append(_fit_row(loss, shapes, row))
        if not fits[-1].faults:
            return _with_result(fits[-1], dict(params))
    best = min(fits, key=lambda fit: len(fit.faults))
    return replace(best, faults=tuple(with_all_forms(loss, rows, fault) for fault in best.faults))


def _fit_row(loss: AnyLoss, shapes: Shapes, row: int) -> Fit:
    """Match every input with its form in one row."""
    least = {dim: bounds.least for dim, bounds in loss.ranges.items()}
    sizes, found, faults = match_shapes(loss, shapes, row, least)
    return Fit(loss, row, sizes, found, tuple(faults))


def match_shapes(
    declared: AnyDeclaration, shapes: Shapes, row: int, least: Mapping[str, int]
) -> tuple[Sizes, dict[str, Shape], list[Fault]]:
    """Match the shape of every input with its form in one row; ``least`` are sizes that a ``[]`` does not show."""
    sizes: Sizes = {}
    found: dict[str, Shape] = {}
    faults: list[Fault] = []
    # tensors of unknown rank come last, when the others have fixed the sizes
    for name, shape in sorted(shapes, key=lambda item: item[1] is None):
        dims = declared.inputs[name].form(row).dims
        matched = match_empty(dims, sizes, least) if shape is None else match(dims, shape, sizes)
        if matched is None:
            got = [0] if shape is None else list(shape)
            expected = f"Expected dimensions {show_dims(dims)}{show_sizes(sizes)}; got {got}."
            faults.append(Fault(pointer("inputs", name), "shape", expected))
        else:
            sizes, found[name] = matched, expand(dims, matched)
    return sizes, found, faults


def with_all_forms(declared: AnyDeclaration, rows: Sequence[int], fault: Fault) -> Fault:
    """List every form that an input could have had."""
    name = fault.pointer.rpartition("/")[2]
    dims = dict.fromkeys(declared.inputs[name].form(row).dims for row in rows)
    first, *others = [show_dims(d) for d in dims]
    detail = fault.detail.replace(first, " or ".join([first, *others]), 1)
    return Fault(fault.pointer, fault.code, detail)


def _with_result(fit: Fit, params: Mapping[str, Any]) -> Fit:
    """Add the shape and the work of the loss, and check sizes against their bounds; sums need at least one element."""
    loss = fit.loss
    if any(not spec.optional and name not in fit.shapes for name, spec in loss.inputs.items()):
        return fit
    dims = loss.unreduced.dims(fit.sizes, params)
    summed = fit.sizes.keys() - names(dims)
    faults: list[Fault] = []
    for dim in fit.sizes:
        size, bounds = prod(fit.sizes[dim]), loss.ranges.get(dim, SizeRange(dim, int(dim in summed)))
        if size < bounds.least or (bounds.most is not None and size > bounds.most):
            word = f"at least {bounds.least}" if size < bounds.least else f"at most {bounds.most}"
            name = next(name for name in fit.shapes if dim in names(fit.form(name).dims))
            detail = f"Expected {dim} to be {word} in {show_dims(fit.form(name).dims)}; got {size}."
            faults.append(Fault(pointer("inputs", name), "size", detail))
    return replace(
        fit,
        unreduced=expand(dims, fit.sizes),
        size_faults=tuple(faults),
        work=loss.elements(fit.shapes, fit.sizes, params),
        overhead=loss.elements_once(fit.sizes, params),
        twice=loss.elements_of(loss.twice, fit.shapes, fit.sizes, params),
    )
