"""Laws of scaling: a loss that declares how it scales does so, however large or small its inputs are."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Scales
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from tests.conformance.cases import Variant, variants

SCALED = [loss for loss in CATALOGUE.values() if loss.scales is not None]


@pytest.mark.parametrize("power", [-6, -3, -1, 1, 3, 6])
@pytest.mark.parametrize("loss", SCALED, ids=lambda loss: loss.name)
def test_a_loss_scales_as_it_declares(loss: AnyLoss, power: int) -> None:
    assert loss.scales is not None
    law, factor = loss.scales, 10.0**power
    for variant in variants(loss):
        value, gradients = _evaluated(variant, law, 1.0)
        scaled, slopes = _evaluated(variant, law, factor)
        _assert_close(scaled, value * factor**law.degree, variant.params)
        for name, gradient in gradients.items():
            unit = torch.ones_like(gradient)
            inputs = _scaled(unit, factor, law.entries) if name in law.inputs else unit
            _assert_close(slopes[name], gradient * factor**law.degree / inputs, variant.params)


def test_many_losses_declare_how_they_scale() -> None:
    assert len(SCALED) >= 40


def _evaluated(variant: Variant, law: Scales, factor: float) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the unreduced loss and its gradients with the inputs of a law times a factor."""
    params = {**variant.params, **law.params}
    params |= {name: _times(params[name], factor) for name in law.along}
    inputs = {name: sent.tensor for name, sent in variant.request().inputs.items()}
    for name in law.inputs:
        if name in inputs:
            inputs[name] = _scaled(inputs[name], factor, law.entries)
    sent = {name: Sent(tensor) for name, tensor in inputs.items()}
    call = bind(Request(loss=variant.loss, inputs=sent, params=params, reduction="none", dtype=torch.float64))
    evaluation = evaluate(call)
    return evaluation.value, evaluation.gradients


def _scaled(tensor: Tensor, factor: float, entries: int | None) -> Tensor:
    """Multiply the first entries along the last axis, or all."""
    if entries is None:
        return tensor * factor
    return torch.cat([tensor[..., :entries] * factor, tensor[..., entries:]], -1)


def _times(param: Any, factor: float) -> Any:
    """Multiply a param, or each number of a list."""
    return tuple(_times(each, factor) for each in param) if isinstance(param, tuple) else param * factor


def _assert_close(found: Tensor, expected: Tensor, params: Mapping[str, Any]) -> None:
    """Compare with the result of a law, relative to the largest element."""
    slack = 1e-9 * expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=slack, msg=str(params))
