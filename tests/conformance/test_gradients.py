"""Gradients: they are the derivative of the value, unless a declaration says otherwise."""

import pytest
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.call import Sent
from service.engine.evaluate import evaluate
from tests.conformance.cases import every_loss, leaves, variants


@every_loss
def test_gradients_are_the_derivative_of_the_value(loss: AnyLoss) -> None:
    if not (loss.differentiable and loss.exact_gradient):
        pytest.skip("declared without one, or with another by design")
    for variant in variants(loss):
        call = variant.call()
        inputs = leaves(call)

        def value(*tensors: Tensor, names: tuple[str, ...] = tuple(inputs), params=call.params) -> Tensor:  # pyright: ignore
            return loss.terms(dict(zip(names, tensors, strict=True)), params).loss

        assert torch.autograd.gradcheck(value, tuple(inputs.values())), variant.params


@every_loss
def test_every_prediction_has_a_gradient_of_its_shape(loss: AnyLoss) -> None:
    for variant in variants(loss):
        call = variant.call()
        gradients = evaluate(call).gradients
        expected = {n for n in loss.predictions if n in call.inputs} if loss.differentiable else set[str]()
        assert gradients.keys() == expected
        assert all(gradient.shape == call.inputs[name].shape for name, gradient in gradients.items())


@every_loss
def test_an_upstream_gradient_gives_the_vector_jacobian_product(loss: AnyLoss) -> None:
    if not loss.differentiable:
        pytest.skip("declared without a gradient")
    for variant in variants(loss)[:3]:
        unreduced = evaluate(variant.call(reduction="none")).value
        upstream = torch.randn(
            unreduced.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        call = variant.call(reduction="none", grad_output=Sent(upstream))
        inputs = leaves(call)
        value = (loss.terms(inputs, call.params).loss * upstream).sum()
        wanted = [inputs[name] for name in call.gradients_of]
        expected = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
        found = evaluate(call).gradients
        for name, gradient in zip(call.gradients_of, expected, strict=True):
            torch.testing.assert_close(found[name], gradient, equal_nan=True)
