"""Calls evaluated together equal calls evaluated alone."""

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from tests.conformance.cases import every_loss, variants


@every_loss
def test_calls_evaluated_together_equal_calls_evaluated_alone(loss: AnyLoss) -> None:
    if loss.fuse == "alone":
        pytest.skip("declared so")
    for variant in variants(loss):
        calls = [variant.call(seed) for seed in range(3)]
        for together, alone in zip(evaluate_together(stacked(calls)), map(evaluate, calls), strict=True):
            for found, expected in (
                (together.value, alone.value),
                (dict(together.gradients), dict(alone.gradients)),
                (dict(together.aux), dict(alone.aux)),
            ):
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
