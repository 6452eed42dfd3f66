"""Arithmetic types: float32 and the half types agree with float64 as far as their digits go."""

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.evaluate import evaluate
from tests.conformance.cases import every_loss, variants, with_inputs


@every_loss
@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)]
)
def test_each_dtype_agrees_with_float64_on_the_same_rounded_inputs(
    loss: AnyLoss, dtype: torch.dtype, relative: float
) -> None:
    for variant in variants(loss):
        call = variant.call(dtype=dtype)
        rounded = {n: t.double() if t.is_floating_point() else t for n, t in call.inputs.items()}
        exact = evaluate(with_inputs(variant.call(), **rounded))
        here = evaluate(call)
        assert here.value.dtype == dtype
        torch.testing.assert_close(
            here.value.double(),
            exact.value,
            rtol=relative,
            atol=relative,
            equal_nan=True,
            msg=str(variant.params),
        )
        for name, gradient in exact.gradients.items():
            assert here.gradients[name].dtype == dtype
            scale = 1 + gradient.abs().max()
            torch.testing.assert_close(
                here.gradients[name].double() / scale, gradient / scale, rtol=relative, atol=relative
            )
