"""The calls of each loss scaled, shifted, driven to extremes, with predictions equal or near to the targets."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from service.catalogue.dims import Sizes, match
from service.catalogue.domains import Between, Domain, Facts, Inside, LogProbabilities, Simplex
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_params
from service.catalogue.spec import Params
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.problems import Invalid
from service.wire import describe
from tests.conformance.cases import variants

POWERS = [power for power in range(-5, 6) if power]

Inputs = Mapping[str, Tensor]
Change = Callable[[AnyLoss, Inputs], Inputs]


@dataclass(frozen=True)
class Base:
    """Inputs that are changed, with the params and the row of forms that they are meant for."""

    name: str
    inputs: Inputs
    params: Params
    row: int


def bases(loss: AnyLoss) -> Iterator[Base]:
    """Yield the example in the catalogue, then a drawn call for each other choice that the loss has."""
    params, rows = draw_params(loss), loss.rows_for(draw_params(loss))
    example = {name: _tensor(value) for name, value in describe.example(loss)["inputs"].items()}
    yield Base("example", example, params, rows[0])
    for variant in variants(loss)[1:]:
        inputs = {name: sent.tensor for name, sent in variant.request().inputs.items()}
        changed = {name: value for name, value in variant.params.items() if value != params[name]}
        yield Base(f"{changed}, form {variant.row}", inputs, variant.params, variant.row)


def calls(
    base: Base, loss: AnyLoss, changes: Mapping[str, Change], dtype: torch.dtype
) -> Iterator[tuple[str, Call]]:
    """Yield a valid call for each change of a base, each once."""
    seen: list[Inputs] = []
    for name, change in changes.items():
        rounded = {
            n: t.to(dtype) if t.is_floating_point() else t for n, t in change(loss, base.inputs).items()
        }
        inputs = _projected(loss, rounded, base)
        if any(_equal(inputs, other) for other in seen):
            continue
        seen.append(inputs)
        sent = {n: Sent(t) for n, t in inputs.items()}
        try:
            call = bind(Request(loss=loss, inputs=sent, params=base.params, dtype=dtype))
        except Invalid:
            continue
        floating = tuple(n for n, t in call.inputs.items() if t.is_floating_point())
        yield f"{base.name}, {name}", call._replace(gradients_of=floating if loss.differentiable else ())


def _tensor(value: object) -> Tensor:
    """Read nested lists of an example, fractions in float64."""
    tensor = torch.tensor(value)
    return torch.tensor(value, dtype=torch.float64) if tensor.is_floating_point() else tensor


def near_and_far() -> Mapping[str, Change]:
    """Name the changes that a backward error is measured at."""
    found: dict[str, Change] = {"as it is": _scaled(1)}
    for power in POWERS:
        found[f"all times 1e{power}"] = _scaled(10.0**power)
        found[f"predictions times 1e{power}"] = _scaled(10.0**power, alone=True)
    for shift in (1.0, 1000.0):
        found[f"all plus {shift:g}"] = _shifted(shift)
    for distance in (0.0, 1e-6, 1e-4, 1e-2):
        near = _near(distance)
        name = f"near by {distance:g}" if distance else "equal"
        found[name] = near
        for power in (-4, -2, 2, 4):
            found[f"{name}, times 1e{power}"] = _after(near, _scaled(10.0**power))
        for shift in (1.0, 1000.0):
            found[f"{name}, plus {shift:g}"] = _after(near, _shifted(shift))
    return found


def extreme() -> Mapping[str, Change]:
    """Name the changes that may drive a loss out of its range."""
    found: dict[str, Change] = {"permuted": _permuted, "constant": _filled(1), "zero": _filled(0)}
    for power in (-30, -10, -3, 3, 10, 19, 30, 38):
        found[f"all times 1e{power}"] = _scaled(10.0**power)
        found[f"predictions times 1e{power}"] = _scaled(10.0**power, alone=True)
    for number in (1e30, -1e30, math.inf, -math.inf):
        found[f"a prediction of {number}"] = _with_a_prediction(number)
    for distance in (0.0, 1e-7, 1e-3, 1e-1):
        for scale in (1e-3, 1.0, 1e3):
            name = f"near by {distance:g}, times {scale:g}"
            found[name] = _after(_near(distance), _scaled(scale))
            found[f"{name}, permuted"] = _after(_after(_near(distance), _permuted), _scaled(scale))
    return found


def _scaled(factor: float, *, alone: bool = False) -> Change:
    """Multiply all floating inputs, or the predictions alone."""

    def change(loss: AnyLoss, inputs: Inputs) -> Inputs:
        wanted = loss.predictions if alone else inputs
        return {n: t * factor if t.is_floating_point() and n in wanted else t for n, t in inputs.items()}

    return change


def _shifted(shift: float) -> Change:
    """Add a number to all floating inputs."""
    return lambda loss, inputs: {n: t + shift if t.is_floating_point() else t for n, t in inputs.items()}


def _near(distance: float) -> Change:
    """Make all floating inputs equal to the first prediction, which is moved a relative distance away."""

    def change(loss: AnyLoss, inputs: Inputs) -> Inputs:
        first = next(name for name in loss.predictions if name in inputs)
        like = inputs[first]
        same = {n: like for n, t in inputs.items() if t.is_floating_point() and t.shape == like.shape}
        if len(same) < 2 or not like.is_floating_point():
            return inputs
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return {**inputs, **same, first: like * (1 + distance * noise)}

    return change


def _permuted(loss: AnyLoss, inputs: Inputs) -> Inputs:
    """Turn the predictions around, the others left as they are."""
    return {n: t.flip(list(range(t.dim()))) if n in loss.predictions else t for n, t in inputs.items()}


def _filled(number: float) -> Change:
    """Make all floating inputs the same number."""
    return lambda loss, inputs: {
        n: torch.full_like(t, number) if t.is_floating_point() else t for n, t in inputs.items()
    }


def _with_a_prediction(number: float) -> Change:
    """Replace the first element of each floating prediction."""

    def change(loss: AnyLoss, inputs: Inputs) -> Inputs:
        found = dict(inputs)
        for name in loss.predictions:
            if name in found and found[name].is_floating_point() and found[name].numel():
                found[name] = found[name].clone()
                found[name].view(-1)[0] = number
        return found

    return change


def _after(first: Change, second: Change) -> Change:
    """Make one change after another."""
    return lambda loss, inputs: second(loss, first(loss, inputs))


def _projected(loss: AnyLoss, inputs: Inputs, base: Base) -> Inputs:
    """Move values outside their domain back into it, or keep those of the base."""
    sizes = _sizes(loss, base)
    found: dict[str, Tensor] = {}
    for name, tensor in inputs.items():
        domain = loss.inputs[name].form(base.row).domain
        dtype = tensor.dtype if tensor.is_floating_point() else torch.float64
        facts = Facts(sizes, base.params, {**base.inputs, **found}, dtype)
        candidates = (tensor, _brought_into(domain, tensor)) if tensor.is_floating_point() else ()
        admitted = (candidate for candidate in candidates if domain.admits(candidate, facts).all())
        found[name] = next(admitted, base.inputs[name].to(tensor.dtype))
    return found


def _sizes(loss: AnyLoss, base: Base) -> Sizes:
    """Return the sizes of the inputs of a base."""
    sizes: Sizes = {}
    for name, tensor in base.inputs.items():
        matched = match(loss.inputs[name].form(base.row).dims, tensor.shape, sizes)
        assert matched is not None
        sizes = matched
    return sizes


def _brought_into(domain: Domain, tensor: Tensor) -> Tensor:
    """Return the values of a domain that are most similar to those outside it."""
    match domain:
        case Between(low, high):
            return tensor.clamp(low, high)
        case Inside(low, high):
            margin = (high - low) / 1024
            return tensor.clamp(low + margin, high - margin)
        case Simplex(axis):
            return tensor.abs() / tensor.abs().sum(axis, keepdim=True)
        case LogProbabilities(axis):
            return tensor.log_softmax(axis)
        case _:
            return tensor.abs()


def _equal(left: Inputs, right: Inputs) -> bool:
    """Return whether two changes come to the same."""
    return all(torch.equal(left[name], right[name]) for name in left)
