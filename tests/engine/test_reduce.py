"""The mean of a loss, with the slope that its gradients start from."""

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE

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
