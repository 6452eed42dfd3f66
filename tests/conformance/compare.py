"""Compare two evaluations of one call, made in different ways."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from service.engine.call import Call, Evaluation, Sent
from service.engine.evaluate import evaluate
from tests.conformance.cases import Variant, variants

CLOSE = {torch.float64: 1e-12, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def assert_same(found: Evaluation, expected: Evaluation, close: float) -> None:
    """Compare all results; gradients relative to the largest one."""
    wanted = outputs(expected)
    for name, tensor in outputs(found).items():
        scale = wanted[name].double().nan_to_num(0, 0, 0).abs().max().item() if tensor.numel() else 0
        torch.testing.assert_close(
            tensor,
            wanted[name],
            rtol=close,
            atol=close * max(1.0, scale),
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def outputs(evaluation: Evaluation) -> dict[str, Tensor]:
    """Return all results of an evaluation by name."""
    return {
        "value": evaluation.value,
        **{f"gradients.{name}": tensor for name, tensor in evaluation.gradients.items()},
        **{f"aux.{name}": tensor for name, tensor in evaluation.aux.items()},
        **({} if evaluation.divisor is None else {"divisor": evaluation.divisor}),
        **({} if evaluation.tangent is None else {"tangent": evaluation.tangent}),
        **{f"hessian_product.{name}": tensor for name, tensor in evaluation.hessian_product.items()},
        **{f"hessian.{name}": tensor for name, tensor in evaluation.hessian.items()},
    }


def of_each_divisor(loss: Any) -> Iterator[Variant]:
    """Yield the default call, and one with all optional inputs: masks and weights change divisors."""
    first, *others = variants(loss)
    yield first
    yield from [v for v in others if v.optional and (v.params, v.row) == (first.params, first.row)][:1]


def sent(variant: Variant, seed: int, reduction: Any, weighted: bool, upstream: bool, **fields: Any) -> Call:
    """Draw a call with its own weights and upstream gradient."""
    plain = variant.call(seed, reduction="none", **{**fields, "divide_by": None})
    shape = evaluate(plain).value.shape
    draw = torch.Generator().manual_seed(100 + seed)
    fields["sample_weight"] = Sent(torch.rand(shape, generator=draw) + 0.1) if weighted else None
    if upstream:
        of_value = shape if reduction == "none" else ()
        fields["grad_output"] = Sent(torch.rand(of_value, generator=draw) + 0.5)
    return variant.call(seed, reduction=reduction, **fields)
