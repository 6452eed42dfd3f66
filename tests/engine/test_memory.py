"""A call that needs more memory, or greater numbers, than there are."""

import pytest
import torch

from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.engine.memory import capacity, within_memory
from service.losses import CATALOGUE
from service.problems import Invalid, TooLarge

CPU = torch.device("cpu")


def test_what_cannot_be_allocated_is_too_large() -> None:
    told = rf"{capacity(CPU)} bytes of cpu .LOSSD_DEVICE.; got one that takes 4000000000000000 bytes more"
    with pytest.raises(TooLarge, match=told), within_memory(CPU):
        torch.empty(10**15)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), within_memory(CPU):
        torch.add(torch.zeros(2), torch.zeros(3))


def test_params_beyond_what_arithmetic_has_are_the_clients_mistake() -> None:
    loss = CATALOGUE["tukey_biweight"]
    inputs = {name: Sent(torch.zeros(2)) for name in ("predictions", "targets")}
    call = bind(Request(loss=loss, inputs=inputs, params={**loss.defaults, "c": 1e300}, dtype=torch.float64))
    with pytest.raises(Invalid) as told:
        evaluate(call)
    assert told.value.faults[0].code == "range"
