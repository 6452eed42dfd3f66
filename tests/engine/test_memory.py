"""A call that needs more memory than there is."""

import pytest
import torch

from service.engine.memory import capacity, within_memory
from service.problems import TooLarge

CPU = torch.device("cpu")


def test_what_cannot_be_allocated_is_too_large() -> None:
    told = rf"{capacity(CPU)} bytes of cpu .LOSSD_DEVICE.; got one that takes 4000000000000000 bytes more"
    with pytest.raises(TooLarge, match=told), within_memory(CPU):
        torch.empty(10**15)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), within_memory(CPU):
        torch.add(torch.zeros(2), torch.zeros(3))
