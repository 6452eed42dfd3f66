"""The mean of a loss, with the slope that its gradients start from, and its divisor."""

from typing import Any

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import likeness
from service.losses import CATALOGUE
from tests.conformance.cases import variants

MSE: AnyLoss = CATALOGUE["mse"]


@pytest.mark.parametrize(
    ("weight", "value", "gradient"),
    [(None, (1 + 4 + 16) / 3, [2 / 3, 4 / 3, 8 / 3]), ([1.0, 0.0, 3.0], 49 / 4, [0.5, 0.0, 6.0])],
)
def test_a_mean_and_its_gradient_are_divided_alike(
    weight: list[float] | None, value: float, gradient: list[float]
) -> None:
    inputs = {"predictions": Sent(torch.tensor([1.0, 2.0, 4.0])), "targets": Sent(torch.zeros(3))}
    sent = None if weight is None else Sent(torch.tensor(weight))
    call = bind(Request(loss=MSE, inputs=inputs, params={}, sample_weight=sent, dtype=torch.float64))
    found = evaluate(call)
    assert found.value.item() == pytest.approx(value)
    assert found.gradients["predictions"].tolist() == pytest.approx(gradient)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_divisor_is_the_number_of_terms_that_a_mean_averages(reduction: Any) -> None:
    for variant in variants(CATALOGUE["ctc"]):
        call = variant.call(reduction=reduction)
        samples = len(call.inputs["input_lengths"])
        found = evaluate(call).divisor
        assert found is not None and found.item() == samples
        weighted = variant.call(reduction=reduction, sample_weight=Sent(torch.full((samples,), 0.25)))
        found = evaluate(weighted).divisor
        assert found is not None and found.item() == samples / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weight", [None, Sent(torch.ones(70_001))], ids=["counted", "weighted"])
def test_a_divisor_is_exact_in_every_dtype(dtype: torch.dtype, weight: Sent | None) -> None:
    inputs = {"predictions": Sent(torch.zeros(70_001)), "targets": Sent(torch.zeros(70_001))}
    call = bind(Request(loss=MSE, inputs=inputs, params={}, sample_weight=weight, dtype=dtype))
    found = evaluate(call).divisor
    assert found is not None and (found.dtype, found.item()) == (torch.float64, 70_001)


def test_calls_with_other_divisors_are_not_evaluated_together() -> None:
    def key(divide_by: float | None) -> Any:
        inputs = {"predictions": Sent(torch.zeros(3)), "targets": Sent(torch.zeros(3))}
        return likeness(bind(Request(loss=MSE, inputs=inputs, params={}, divide_by=divide_by)))

    assert key(2.0) == key(2.0)
    assert len({key(None), key(2.0), key(3.0)}) == 3
