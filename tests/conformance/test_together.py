"""Calls evaluated together equal calls evaluated alone: whatever the reduction, weights, upstream gradient and dtype."""

from itertools import product

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.call import Call
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from tests.conformance.cases import every_loss, variants
from tests.conformance.compare import CLOSE, assert_same, of_each_divisor, sent


@every_loss
def test_calls_evaluated_together_equal_calls_evaluated_alone(loss: AnyLoss) -> None:
    for variant in variants(loss):
        assert_equal([variant.call(seed) for seed in range(3)])


@every_loss
def test_they_do_under_every_reduction_weight_and_upstream_gradient(loss: AnyLoss) -> None:
    reductions = (("mean", None), ("mean", 2.5), ("sum", None), ("none", None))
    for (reduction, divide_by), weighted, upstream in product(reductions, (False, True), (False, True)):
        for variant in of_each_divisor(loss):
            calls = [
                sent(variant, seed, reduction, weighted, upstream, divide_by=divide_by) for seed in range(3)
            ]
            assert_equal(calls)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_they_do_in_every_dtype(loss: AnyLoss, dtype: torch.dtype) -> None:
    variant = variants(loss)[0]
    for reduction in ("mean", "none"):
        assert_equal([sent(variant, seed, reduction, True, True, dtype=dtype) for seed in range(3)])


def assert_equal(calls: list[Call]) -> None:
    close = CLOSE[calls[0].dtype]
    for together, alone in zip(evaluate_together(stacked(calls)), map(evaluate, calls), strict=True):
        assert_same(together, alone, close)
