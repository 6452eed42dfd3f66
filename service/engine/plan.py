"""Plans: everything about a request except the values of its tensors, worked out once for each kind of request."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from service.catalogue.domains import Domain, Facts, Kind
from service.catalogue.registry import AnyLoss
from service.engine import check
from service.engine.call import HALF, Call, Reduction, Request, Sent
from service.engine.fit import Fit, Shapes, fit

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything about a request except the values of its inputs, worked out once for each kind.

    ``call`` is the call without its inputs. ``bounds`` holds the range of admitted values for each input that must be checked, None if its domain is not a
    range; ``dtypes`` the dtypes that floating inputs are rounded to. ``rounded`` are the params as the arithmetic takes
    them, None if they are unchanged.
    """

    call: Call
    fitted: Fit
    kinds: Mapping[str, Kind]
    bounds: Mapping[str, tuple[float, float] | None]
    dtypes: Mapping[str, torch.dtype]
    params: Mapping[str, Any]
    rounded: Mapping[str, Any] | None

    def call_of(self, request: Request, inputs: Tensors) -> Call:
        """Return the call of a request that this is the plan of."""
        call = self.call._replace(inputs=inputs, params=self.rounded or request.params)
        if request.divide_by is None:
            return call
        key = call.key and (call.key, request.divide_by)
        return call._replace(divide_by=request.divide_by, key=key)

    def admit(self, inputs: Tensors, *, stacked: bool = False) -> dict[str, Tensor] | None:
        """Cast the inputs of a call, or of several ``stacked`` on a new first axis; return None if one is not admitted.

        The smallest and largest values are enough to check most inputs; the others are checked element by element.
        """
        if (kinded := self._kinded(inputs)) is None:
            return None
        rounded = {
            name: cast(tensor, self.dtypes[name]) if self.kinds[name] == "float" else tensor
            for name, tensor in kinded.items()
        }
        unsettled: list[str] = []
        for name, bounds in self.bounds.items():
            if bounds is None or not check.between(kinded[name], *bounds):
                unsettled.append(name)
        if unsettled or self.fitted.loss.conditions:
            look = partial(self._are_admitted, unsettled)
            admitted = torch.func.vmap(look)(kinded) if stacked else look(kinded)
            if not bool(admitted.all()):
                return None
        return rounded

    def _kinded(self, inputs: Tensors) -> dict[str, Tensor] | None:
        """Convert each input to its kind of number; return None if one is of another kind."""
        kinded: dict[str, Tensor] = {}
        for name, kind in self.kinds.items():
            if kind == "float":
                kinded[name] = inputs[name]
                continue
            if check.not_of_kind(inputs[name], kind) is not None:
                return None
            kinded[name] = check.of_kind(inputs[name], kind)
        return kinded

    def _are_admitted(self, unsettled: Sequence[str], inputs: Tensors) -> Tensor:
        """Return whether some inputs of a call are in their domains, and the conditions hold."""
        facts = Facts(self.fitted.sizes, self.params, inputs)
        found = [check.admitted(name, self.fitted, facts, self.call.dtype).all() for name in unsettled]
        found += [torch.as_tensor(condition.holds(facts)) for condition in self.fitted.loss.conditions]
        return torch.stack(found).all()


def plan(request: Request) -> Plan | None:
    """Return the plan of a request; None if it needs the full check, or has a fault."""
    loss, gradients = request.loss, request.gradients
    beside = request.sample_weight or request.grad_output or request.tangents or request.hessian
    if beside or check.divide_by(request):
        return None
    # plans are cached, so nothing in their keys may have an unbounded length
    if not isinstance(gradients, bool) and not _are_inputs(loss, gradients):
        return None
    asked = (
        loss,
        shapes_of(request.inputs),
        tuple(request.params.items()),
        gradients,
        request.reduction,
        request.dtype,
    )
    listed = tuple in map(type, request.params.values())
    return _plan(*asked) if listed else _cached_plan(*asked)


def shapes_of(inputs: Mapping[str, Sent]) -> Shapes:
    """Return the shapes of the tensors sent."""
    return tuple([(n, None if sent.any_rank else tuple(sent.tensor.shape)) for n, sent in inputs.items()])


def _are_inputs(loss: AnyLoss, gradients: tuple[str, ...]) -> bool:
    """Return whether ``gradients`` are names of inputs, and no more than there are."""
    return len(gradients) <= len(loss.inputs) and {*gradients} <= loss.inputs.keys()


@lru_cache(maxsize=4096)
def _cached_plan(*asked: Any) -> Plan | None:
    """Make a plan, which then identifies the calls that can be evaluated together."""
    found = _plan(*asked)
    return found and replace(found, call=found.call._replace(key=object()))


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
    forms = {name: fitted.form(name) for name in loss.inputs if name in fitted.shapes}
    facts = Facts(fitted.sizes, named, {})
    rounded = {name: round_param(param, dtype) for name, param in params}
    return Plan(
        call=Call(
            loss=loss,
            inputs={},
            params=named,
            work=fitted.work,
            overhead=fitted.overhead,
            gradients_of=gradients_of,
            reduction=reduction,
            dtype=dtype,
        ),
        fitted=fitted,
        kinds={name: form.domain.kind for name, form in forms.items()},
        bounds={
            name: form.domain.range(facts)
            for name, form in forms.items()
            if not check.admits_all(form, loss.inputs[name])
        },
        dtypes={name: rounding(form.domain, dtype) for name, form in forms.items()},
        params=named,
        rounded=None if rounded == named else rounded,
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
