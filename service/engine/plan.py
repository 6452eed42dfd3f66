"""Plans: everything about a request except the values of its tensors, worked out once for each kind of request."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from service.catalogue.domains import Domain, Facts, Kind
from service.catalogue.registry import AnyLoss
from service.engine import check
from service.engine.call import HALF, Reduction, Request
from service.engine.fit import Shapes, fit, shapes_of


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a request except the values of its inputs, worked out once for each kind.

    ``bounds`` holds the range of each input's admitted values, None if all are admitted; ``dtypes`` the dtypes that
    floating inputs are rounded to.
    ``params`` are the request's params as the arithmetic takes them, None if they are unchanged.
    """

    kinds: Mapping[str, Kind]
    bounds: Mapping[str, tuple[float, float] | None]
    gradients_of: tuple[str, ...]
    dtypes: Mapping[str, torch.dtype]
    params: Mapping[str, Any] | None
    work: int

    def admit(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Cast inputs, or stacks of them, if their smallest and largest values prove that all are admitted."""
        admitted: dict[str, Tensor] = {}
        for name, kind in self.kinds.items():
            tensor = inputs[name]
            if kind != "float":
                if check.not_of_kind(tensor, kind) is not None:
                    return None
                tensor = tensor.to(torch.int64 if kind == "int" else torch.bool)
            bounds = self.bounds[name]
            if bounds and not check.between(tensor, *bounds):
                return None
            admitted[name] = cast(tensor, self.dtypes[name]) if kind == "float" else tensor
        return admitted


def plan(request: Request) -> Plan | None:
    """Return the plan of a request; None if it needs the full check, or has a fault."""
    loss, gradients = request.loss, request.gradients
    if loss.conditions or request.sample_weight or request.grad_output:
        return None
    # plans are cached, so nothing in their keys may have an unbounded length
    if not isinstance(gradients, bool) and not _are_inputs(loss, gradients):
        return None
    params = tuple(request.params.items())
    listed = any(isinstance(param, tuple) for _, param in params)
    make = _plan.__wrapped__ if listed else _plan
    return make(loss, shapes_of(request.inputs), params, gradients, request.reduction, request.dtype)


def _are_inputs(loss: AnyLoss, gradients: tuple[str, ...]) -> bool:
    """Return whether ``gradients`` are names of inputs, and no more than there are."""
    return len(gradients) <= len(loss.inputs) and {*gradients} <= loss.inputs.keys()


@lru_cache(maxsize=4096)
def _plan(
    loss: AnyLoss,
    shapes: Shapes,
    params: tuple[tuple[str, Any], ...],
    gradients: bool | tuple[str, ...],
    reduction: Reduction,
    dtype: torch.dtype,
) -> Plan | None:
    """Make a plan."""
    named = dict(params)
    fitted = fit(loss, shapes, named)
    gradients_of, faults = check.gradients_of(loss, gradients, fitted, [name for name, _ in shapes])
    faults += [*fitted.faults, *fitted.size_faults, *check.lists(loss, named, fitted.sizes)]
    if faults or fitted.unreduced is None or any(shape is None for _, shape in shapes):
        return None
    if reduction == "mean" and prod(fitted.unreduced) == 0:
        return None
    bounds: dict[str, tuple[float, float] | None] = {}
    for name in fitted.shapes:
        form, spec = fitted.form(name), loss.inputs[name]
        bounds[name] = form.domain.range(Facts(fitted.sizes, named, {}))
        if check.admits_all(form, spec):
            bounds[name] = None
        elif bounds[name] is None:
            return None
    rounded = {name: round_param(param, dtype) for name, param in params}
    return Plan(
        kinds={name: fitted.form(name).domain.kind for name in loss.inputs if name in fitted.shapes},
        bounds=bounds,
        gradients_of=gradients_of,
        dtypes={name: rounding(fitted.form(name).domain, dtype) for name in fitted.shapes},
        params=None if rounded == named else rounded,
        work=fitted.work,
    )


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a floating input to the requested dtype; half types are computed in float32."""
    return tensor.to(dtype).float() if dtype in HALF else tensor.to(dtype)


def rounding(domain: Domain, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to round a floating input to; never a half type if values are marks or indices."""
    return torch.float32 if dtype in HALF and domain.exact else dtype


def round_param(param: Any, dtype: torch.dtype) -> Any:
    """Round a param beyond the dtype of the arithmetic to infinity, as elements of tensors are."""
    most = torch.finfo(torch.float32 if dtype in HALF else dtype).max
    return math.copysign(math.inf, param) if isinstance(param, float) and abs(param) > most else param
