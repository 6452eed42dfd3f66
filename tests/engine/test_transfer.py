"""Inputs on their way to a device: small ones together, large ones pinned and counted."""

import pytest
import torch
from torch import Tensor

from service.engine.call import Call
from service.engine.stack import stacked
from service.engine.transfer import SMALL, pinned
from service.losses import CATALOGUE

CUDA = torch.device("cuda", 0)


def call(size: int) -> Call:
    inputs = {"predictions": torch.zeros(size), "targets": torch.zeros(size)}
    return Call(loss=CATALOGUE["mse"], inputs=inputs, params={}, work=size)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Let any machine pin memory, and return the tensors that were."""
    found: list[Tensor] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        found.append(tensor.clone())
        return found[-1]

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    return found


def test_large_inputs_are_pinned_and_their_bytes_counted(copied: list[Tensor]) -> None:
    counted: list[int] = []
    large = call(SMALL)
    ready = pinned(large, CUDA, counted.append)
    assert list(ready.inputs.values()) == copied
    assert list(ready.inputs) == list(large.inputs)
    assert counted == [8 * SMALL]
    stack = pinned(stacked([large, large]), CUDA, counted.append)
    assert stack.inputs["targets"].shape == (2, SMALL)
    assert counted[1:] == [16 * SMALL]


@pytest.mark.parametrize(("size", "device"), [(SMALL // 4, CUDA), (SMALL, torch.device("cpu"))])
def test_small_inputs_and_those_of_a_cpu_stay(copied: list[Tensor], size: int, device: torch.device) -> None:
    counted: list[int] = []
    ready = pinned(call(size), device, counted.append)
    assert copied == []
    assert sum(counted) == 0
    assert ready.inputs["predictions"].numel() == size
