"""The example of each loss, scaled, shifted, and with predictions that are equal or near to the targets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from service.catalogue.dims import Sizes, match
from service.catalogue.domains import Between, Domain, Facts, Inside, LogProbabilities, Simplex
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_params
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.problems import Invalid
from service.wire import describe

POWERS = [power for power in range(-5, 6) if power]

Inputs = Mapping[str, Tensor]
Change = Callable[[AnyLoss, Inputs], Inputs]


def calls(loss: AnyLoss) -> Iterator[tuple[str, Call]]:
    """Yield a valid float32 call for each change of the example."""
    params = draw_params(loss)
    base = {name: _tensor(value) for name, value in describe.example(loss)["inputs"].items()}
    seen: list[Inputs] = []
    for name, change in _changes().items():
        inputs = {n: t.float() if t.is_floating_point() else t for n, t in change(loss, base).items()}
        inputs = _projected(loss, inputs, base, params)
        if any(_equal(inputs, other) for other in seen):
            continue
        seen.append(inputs)
        try:
            call = bind(Request(loss=loss, inputs={n: Sent(t) for n, t in inputs.items()}, params=params))
        except Invalid:
            continue
        floating = tuple(n for n, t in call.inputs.items() if t.is_floating_point())
        yield name, replace(call, gradients_of=floating if loss.differentiable else ())


def _tensor(value: object) -> Tensor:
    """Read nested lists of an example, fractions in float64."""
    tensor = torch.tensor(value)
    return torch.tensor(value, dtype=torch.float64) if tensor.is_floating_point() else tensor


def _changes() -> Mapping[str, Change]:
    """Name the ways in which an example is changed."""
    found: dict[str, Change] = {"example": _scaled(1)}
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


def _after(first: Change, second: Change) -> Change:
    """Make one change after another."""
    return lambda loss, inputs: second(loss, first(loss, inputs))


def _projected(loss: AnyLoss, inputs: Inputs, base: Inputs, params: Mapping[str, object]) -> Inputs:
    """Bring what has left its domain back into it, or leave it as it is in the example."""
    row, sizes = _fitted(loss, base)
    found: dict[str, Tensor] = {}
    for name, tensor in inputs.items():
        domain = loss.inputs[name].form(row).domain
        facts = Facts(sizes, params, {**base, **found})
        candidates = (tensor, _brought_into(domain, tensor)) if tensor.is_floating_point() else ()
        admitted = (candidate for candidate in candidates if domain.admits(candidate, facts).all())
        found[name] = next(admitted, base[name].to(tensor.dtype))
    return found


def _fitted(loss: AnyLoss, base: Inputs) -> tuple[int, Sizes]:
    """Return the first row of forms that the example fits, and its sizes."""
    for row in range(loss.rows):
        sizes: Sizes | None = {}
        for name, tensor in base.items():
            sizes = None if sizes is None else match(loss.inputs[name].form(row).dims, tensor.shape, sizes)
        if sizes is not None:
            return row, sizes
    raise AssertionError(f"{loss.name}: no row of forms fits its example")


def _brought_into(domain: Domain, tensor: Tensor) -> Tensor:
    """Return the values of a domain that are nearest in kind to what has left it."""
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
    """Tell whether two changes come to the same."""
    return all(torch.equal(left[name], right[name]) for name in left)
