"""Calls evaluated together equal calls evaluated alone: whatever the reduction, weights, upstream gradient and dtype."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.call import Call, Evaluation, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from tests.conformance.cases import Variant, every_loss, variants

CLOSE = {torch.float64: 1e-12, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}


@every_loss
def test_calls_evaluated_together_equal_calls_evaluated_alone(loss: AnyLoss) -> None:
    for variant in variants(loss):
        assert_equal([variant.call(seed) for seed in range(3)])


@every_loss
def test_they_do_under_every_reduction_weight_and_upstream_gradient(loss: AnyLoss) -> None:
    for reduction, weighted, upstream in product(("mean", "sum", "none"), (False, True), (False, True)):
        for variant in of_each_divisor(loss):
            assert_equal([sent(variant, seed, reduction, weighted, upstream) for seed in range(3)])


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_they_do_in_every_dtype(loss: AnyLoss, dtype: torch.dtype) -> None:
    variant = variants(loss)[0]
    for reduction in ("mean", "none"):
        assert_equal([sent(variant, seed, reduction, True, True, dtype=dtype) for seed in range(3)])


def of_each_divisor(loss: AnyLoss) -> Iterator[Variant]:
    """Yield the default call, and that with all optional inputs: masks and weights make for other divisors."""
    first, *others = variants(loss)
    yield first
    yield from [v for v in others if v.optional and (v.params, v.row) == (first.params, first.row)][:1]


def sent(variant: Variant, seed: int, reduction: Any, weighted: bool, upstream: bool, **fields: Any) -> Call:
    """Draw a call with a weight for each element, and an upstream gradient, that no other call has."""
    plain = variant.call(seed, reduction="none", **fields)
    shape = evaluate(plain).value.shape
    draw = torch.Generator().manual_seed(100 + seed)
    fields["sample_weight"] = Sent(torch.rand(shape, generator=draw) + 0.1) if weighted else None
    if upstream:
        of_value = shape if reduction == "none" else ()
        fields["grad_output"] = Sent(torch.rand(of_value, generator=draw) + 0.5)
    return variant.call(seed, reduction=reduction, **fields)


def assert_equal(calls: list[Call]) -> None:
    close = CLOSE[calls[0].dtype]
    for together, alone in zip(evaluate_together(stacked(calls)), map(evaluate, calls), strict=True):
        expected = outputs(alone)
        for name, tensor in outputs(together).items():
            # a gradient near zero is as near as the largest one allows
            scale = expected[name].double().nan_to_num(0, 0, 0).abs().max().item() if tensor.numel() else 0
            torch.testing.assert_close(
                tensor, expected[name], rtol=close, atol=close * max(1.0, scale), equal_nan=True, msg=name
            )


def outputs(evaluation: Evaluation) -> dict[str, Tensor]:
    return {
        "value": evaluation.value,
        **{f"gradients.{name}": tensor for name, tensor in evaluation.gradients.items()},
        **{f"aux.{name}": tensor for name, tensor in evaluation.aux.items()},
    }
