"""Second derivatives: products and diagonals are the derivatives of the gradients, alone and together, for every loss."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.domains import Domain, LogProbabilities, OneOf, Simplex
from service.catalogue.registry import AnyLoss
from service.catalogue.twice import Twice
from service.engine.bind import bind
from service.engine.call import Call, Sent
from service.engine.evaluate import evaluate
from service.engine.fit import Fit, fit
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from service.losses.distribution.transport import Histogram
from tests.conformance.cases import Variant, every_loss, leaves, variants, with_inputs
from tests.conformance.changes import bases, calls, near_and_far
from tests.conformance.compare import CLOSE, assert_same

STEPS = (1e-3, 1e-4, 1e-5)
"""Steps of differences; the larger may cross a kink, the smaller are rounded."""
WEIGHTS = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
"""Of central differences, exact for polynomials of degree 6."""
Tensors = Mapping[str, Tensor]


@every_loss
def test_tangents_and_products_are_the_derivatives_of_the_value_and_of_the_gradients(loss: AnyLoss) -> None:
    skip_unless_differentiable(loss)
    for variant in variants(loss):
        assert_derivatives(with_tangents(variant, 0, variant.call(reduction="none").gradients_of))


@every_loss
def test_they_are_of_a_weighted_mean_and_of_every_differentiable_input(loss: AnyLoss) -> None:
    skip_unless_differentiable(loss)
    for variant in variants(loss)[:2]:
        fitted = fitted_of(variant.call())
        floating = [n for n in fitted.shapes if fitted.floating(n) and is_continuous(fitted.form(n).domain)]
        shape = evaluate(variant.call(reduction="none", gradients=False)).value.shape
        weight = Sent(
            torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
        )
        fields: dict[str, Any] = {"sample_weight": weight, "reduction": "mean", "gradients": tuple(floating)}
        assert_derivatives(with_tangents(variant, 1, floating, **fields, grad_output=Sent(torch.tensor(0.7))))


@every_loss
def test_calls_together_have_the_second_derivatives_that_they_have_alone(loss: AnyLoss) -> None:
    skip_unless_differentiable(loss)
    for variant in variants(loss)[:2]:
        for dtype in (torch.float64, torch.float32):
            names = variant.call().gradients_of
            some = [with_tangents(variant, seed, names, reduction="mean", dtype=dtype) for seed in range(3)]
            for together, call in zip(evaluate_together(stacked(some)), some, strict=True):
                assert_same(together, evaluate(call), 10 * CLOSE[dtype])


@every_loss
def test_what_is_differentiated_twice_has_the_value_and_gradients_of_what_is_differentiated_once(
    loss: AnyLoss,
) -> None:
    skip_unless_differentiable(loss)
    for variant in variants(loss):
        call = variant.call(reduction="none")
        expected, inputs, twice = evaluate(call), leaves(call), Twice()
        with twice.entered():
            found = loss.terms(inputs, call.params).loss
        wanted = [inputs[name] for name in call.gradients_of]
        gradients = torch.autograd.grad(found.sum(), wanted, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(found.detach(), expected.value, rtol=1e-10, atol=1e-12)
        for name, gradient in zip(call.gradients_of, gradients, strict=True):
            torch.testing.assert_close(gradient, expected.gradients[name], rtol=1e-9, atol=1e-10)


@every_loss
def test_a_diagonal_is_all_that_there_is_of_the_second_derivative(loss: AnyLoss) -> None:
    skip_unless_differentiable(loss)
    for variant in variants(loss):
        call = variant.call(reduction="mean")
        fitted = fitted_of(call)
        for name in fitted.shapes:
            if fitted.floating(name) and loss.elementwise(name, fitted.row, fitted.sizes, call.params):
                alone = call._replace(gradients_of=(name,))
                diagonal = evaluate(alone._replace(hessian="diagonal")).hessian[name]
                whole = torch.stack([evaluate(a).hessian_product[name] for a in along_each(alone, name)])
                expected = torch.diag(diagonal.flatten()).reshape(whole.shape)
                torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-12)


@every_loss
def test_elements_depend_on_several_of_an_input_of_their_dims_if_they_are_declared_to(loss: AnyLoss) -> None:
    dependent = False
    for variant in variants(loss):
        call = variant.call(reduction="none", gradients=False)
        fitted = fitted_of(call)
        dims = loss.unreduced.dims(fitted.sizes, call.params)
        for name in fitted.shapes:
            if fitted.floating(name) and fitted.form(name).dims == dims:
                dependent |= any(depends_elsewhere(call, name, place) for place in range(2))
    if loss.differentiable:
        assert dependent <= (loss.coupled or loss.compares_samples)
        assert loss.coupled <= dependent


@every_loss
def test_a_smooth_loss_has_its_diagonal_at_the_targets_too(loss: AnyLoss) -> None:
    skip_unless_differentiable(loss)
    step = 1e-6
    for base in bases(loss):
        for _, call in calls(base, loss, {"equal": near_and_far()["equal"]}, torch.float64):
            fitted = fitted_of(call)
            for name in loss.predictions:
                if name in call.inputs and loss.elementwise(name, fitted.row, fitted.sizes, call.params):
                    alone = call._replace(gradients_of=(name,), reduction="sum")
                    below, at, above = (moved_gradient(alone, name, by) for by in (-step, 0.0, step))
                    # a jump between them is a kink
                    smooth = (above - below).abs() < 1e-3
                    kinked = (above - 2 * at + below).abs() > 1e-3 * step
                    found = evaluate(alone._replace(hessian="diagonal")).hessian[name]
                    counted = smooth & ~kinked
                    slope = (above - below) / (2 * step)
                    torch.testing.assert_close(found[counted], slope[counted], rtol=1e-3, atol=1e-3)


def skip_unless_differentiable(loss: AnyLoss) -> None:
    if not loss.differentiable:
        pytest.skip("declared without a gradient")


def fitted_of(call: Call) -> Fit:
    """Return how the shapes of a call fit its declaration."""
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in call.inputs.items())
    return fit(call.loss, shapes, call.params)


def is_continuous(domain: Domain) -> bool:
    """Return whether numbers between those of a domain have a meaning."""
    return not (domain.exact or isinstance(domain, OneOf))


def with_tangents(variant: Variant, seed: int, names: Any, **fields: Any) -> Call:
    """Draw a call with tangents that stay within the domains of the named inputs."""
    request = variant.request(seed, **{"reduction": "none", **fields})
    fitted = fitted_of(bind(request))
    draw = torch.Generator().manual_seed(100 + seed)
    shares = {n: s for n, s in request.inputs.items() if isinstance(fitted.form(n).domain, Histogram)}
    request = request._replace(inputs={**request.inputs, **{n: mixed(s, draw) for n, s in shares.items()}})
    tangents = {n: tangent(fitted.form(n).domain, request.inputs[n].tensor, draw) for n in names}
    return bind(request._replace(tangents={name: Sent(each) for name, each in tangents.items()}))


def mixed(shares: Sent, draw: torch.Generator) -> Sent:
    """Return shares that are no multiples of one number: the sums of some are equal, where costs have a kink."""
    others = torch.randn(shares.tensor.shape, generator=draw, dtype=torch.float64).softmax(-1)
    return Sent(0.9 * shares.tensor + 0.1 * others)


def tangent(domain: Domain, like: Tensor, draw: torch.Generator) -> Tensor:
    """Draw a direction in which probabilities still sum to 1."""
    found = torch.randn(like.shape, generator=draw, dtype=torch.float64)
    match domain:
        case Simplex(axis):
            return found - found.mean(axis, keepdim=True)
        case LogProbabilities(axis):
            return found - (found * like.exp()).sum(axis, keepdim=True)
        case _:
            return found


def assert_derivatives(call: Call) -> None:
    """Compare the second derivatives with differences, by the best of several steps."""
    found = evaluate(call)
    assert found.tangent is not None
    given = {"tangent": found.tangent, **found.hessian_product}
    errors: list[float] = []
    for step in STEPS:
        errors.append(error_of(given, differences(call, step)))
        if errors[-1] < 1e-6:
            return
    raise AssertionError(f"{call.params}: {errors}")


def error_of(found: Tensors, expected: Tensors) -> float:
    """Return the largest error, relative to the largest element of its tensor or 1."""
    assert found.keys() == expected.keys()
    errors = [
        (found[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1)
        for name, tensor in expected.items()
        if tensor.numel()
    ]
    return torch.stack(errors).max().item() if errors else 0.0


def differences(call: Call, step: float) -> Tensors:
    """Return the derivatives of value and gradients along the tangents, by differences."""
    total: dict[str, Tensor] = {}
    for places, weight in WEIGHTS.items():
        for sign in (1, -1):
            by = sign * places * step
            there = with_inputs(call, **{n: call.inputs[n] + by * t for n, t in call.tangents.items()})
            one = evaluate(there._replace(tangents={}))
            for name, tensor in {"tangent": one.value, **one.gradients}.items():
                total[name] = total.get(name, torch.zeros_like(tensor)) + sign * weight / step * tensor
    return total


def along_each(call: Call, name: str) -> list[Call]:
    """Return the call with a tangent along each element of an input."""
    like = call.inputs[name]
    directions = torch.eye(like.numel(), dtype=like.dtype).reshape(-1, *like.shape)
    return [call._replace(tangents={name: direction}) for direction in directions]


def depends_elsewhere(call: Call, name: str, place: int) -> bool:
    """Return whether other elements of the loss change with one element of an input."""
    tensor = call.inputs[name].clone(memory_format=torch.contiguous_format)
    tensor.view(-1)[place] = 0.9 * tensor.view(-1)[place] + 0.01
    before, after = (evaluate(each).value.flatten() for each in (call, with_inputs(call, **{name: tensor})))
    changed = (before != after) & ~(before.isnan() & after.isnan())
    changed[place] = False
    return bool(changed.any())


def moved_gradient(call: Call, name: str, by: float) -> Tensor:
    """Return the gradient by an input that is moved."""
    return evaluate(with_inputs(call, **{name: call.inputs[name] + by})).gradients[name]


@every_loss
def test_a_weight_of_zero_removes_elements_from_second_derivatives_too(loss: AnyLoss) -> None:
    skip_unless_differentiable(loss)
    variant = variants(loss)[0]
    call = with_tangents(variant, 0, variant.call(reduction="none").gradients_of)
    spoiled = with_inputs(call, **{name: with_nan(call.inputs[name]) for name in call.tangents})
    value, kept = (evaluate(each._replace(tangents={})).value for each in (call, spoiled))
    weight = (value == kept).to(value)
    pair = [each._replace(sample_weight=weight) for each in (call, spoiled)]
    whole, removed = map(evaluate, pair)
    assert whole.tangent is not None
    assert removed.tangent is not None
    torch.testing.assert_close(removed.tangent, whole.tangent)
    torch.testing.assert_close(dict(removed.hessian_product), dict(whole.hessian_product))
    for together, alone in zip(evaluate_together(stacked(pair)), (whole, removed), strict=True):
        assert_same(together, alone, 1e-9)


def with_nan(tensor: Tensor) -> Tensor:
    """Return a tensor with NaN in its first place."""
    spoiled = tensor.clone(memory_format=torch.contiguous_format)
    spoiled.view(-1)[0] = torch.nan
    return spoiled
