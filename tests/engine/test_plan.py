"""Plans of requests: what may be cached, and how params are rounded."""

import math
from typing import Any

import pytest
import torch

from service.engine.call import Request, Sent
from service.engine.plan import plan, round_param
from service.losses import CATALOGUE

MOST = torch.finfo(torch.float32).max


def request(gradients: Any) -> Request:
    inputs = {name: Sent(torch.zeros(2)) for name in ("predictions", "targets")}
    return Request(loss=CATALOGUE["mse"], inputs=inputs, params={}, gradients=gradients)


@pytest.mark.parametrize("gradients", [True, False, (), ("targets",), ("targets", "predictions")])
def test_gradients_that_an_input_can_have_are_planned(gradients: Any) -> None:
    assert plan(request(gradients)) is not None


@pytest.mark.parametrize("gradients", [("targets",) * 3, ("nothing",)])
def test_names_without_a_bound_are_not_kept(gradients: Any) -> None:
    assert plan(request(gradients)) is None


@pytest.mark.parametrize(
    ("param", "dtype", "rounded"),
    [
        (MOST, torch.float32, MOST),
        (-2 * MOST, torch.float32, -math.inf),
        (2 * MOST, torch.bfloat16, math.inf),
        (2 * MOST, torch.float64, 2 * MOST),
        (10**300, torch.float32, 10**300),
    ],
)
def test_a_param_beyond_the_arithmetic_is_infinite(param: float, dtype: torch.dtype, rounded: float) -> None:
    assert round_param(param, dtype) == rounded
