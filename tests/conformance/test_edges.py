"""Edges that every loss has: predictions that are NaN, infinite or huge, and weights that are all zero."""

import math

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Sent
from service.engine.evaluate import evaluate
from service.problems import Invalid
from tests.conformance.cases import MATCHED, every_loss, variants


@every_loss
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e38, -1e38])
def test_what_no_model_should_predict_is_answered_or_refused_and_nan_is_answered(
    loss: AnyLoss, number: float
) -> None:
    for variant in variants(loss)[:4]:
        request = variant.request(dtype=torch.float32)
        predictions = [name for name in loss.predictions if name in request.inputs]
        filled = {name: Sent(torch.full_like(request.inputs[name].tensor, number)) for name in predictions}
        assert filled
        try:
            call = bind(request._replace(inputs={**request.inputs, **filled}))
        except Invalid:
            assert not math.isnan(number)
            continue
        try:
            evaluation = evaluate(call)
        except Invalid:
            assert loss.name in MATCHED
            continue
        assert loss.name not in MATCHED or math.isfinite(number)
        assert evaluation.value.isnan() or not math.isnan(number)
        assert evaluation.gradients.keys() == set(call.gradients_of)


@every_loss
def test_weights_of_zero_give_the_mean_of_nothing_and_zero_gradients(loss: AnyLoss) -> None:
    variant = variants(loss)[0]
    zero = evaluate(variant.call(sample_weight=Sent(torch.tensor(0.0))))
    assert zero.value == loss.empty_mean or (zero.value.isnan() and math.isnan(loss.empty_mean))
    assert all((gradient == 0).all() for gradient in zero.gradients.values())
