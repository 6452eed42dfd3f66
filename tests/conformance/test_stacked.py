"""Like calls of every loss are checked as one stack; otherwise they would be checked one by one, which is slow."""

import pytest
import torch

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind, bind_alike
from service.engine.call import Request, Sent
from service.engine.stack import Stack
from service.problems import Invalid
from tests.conformance.cases import every_loss, variants

WRONG = (float("nan"), float("inf"), -7.5, -1.0, 0.3, 1e9)
"""Numbers that some domains admit and others refuse."""


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_like_calls_are_checked_as_one_stack(loss: AnyLoss, dtype: torch.dtype) -> None:
    for variant in variants(loss):
        requests = [variant.request(seed, dtype=dtype) for seed in range(3)]
        stack = as_stack(requests)
        assert stack, (
            f"calls of {loss.name} are checked one by one: does a domain or condition of it run under vmap?"
        )
        for found, request in zip(stack, requests, strict=True):
            expected = bind(request)
            assert found.inputs.keys() == expected.inputs.keys()
            for name, tensor in expected.inputs.items():
                torch.testing.assert_close(found.inputs[name], tensor, rtol=0, atol=0, equal_nan=True)
            assert found._replace(inputs={}) == expected._replace(inputs={})


@every_loss
def test_a_stack_is_refused_exactly_where_one_of_its_calls_is(loss: AnyLoss) -> None:
    first, second = (variants(loss)[-1].request(seed) for seed in range(2))
    for name, sent in first.inputs.items():
        read_as_float = first._replace(inputs={**first.inputs, name: Sent(sent.tensor.double())})
        for number in WRONG:
            spoiled = ending_with(second, name, number)
            assert (as_stack([read_as_float, spoiled]) is None) == is_refused(spoiled), (name, number)


def as_stack(requests: list[Request]) -> Stack | None:
    """Bind requests as one stack."""
    first = requests[0]
    tensors = {name: [one.inputs[name].tensor for one in requests] for name in first.inputs}
    return bind_alike(first, {name: torch.stack([*each]) for name, each in tensors.items()})


def ending_with(request: Request, name: str, number: float) -> Request:
    """Return the request with one input converted to floats and its last element replaced by a number."""
    tensor = request.inputs[name].tensor.double().clone()
    tensor.view(-1)[-1] = number
    return request._replace(inputs={**request.inputs, name: Sent(tensor)})


def is_refused(request: Request) -> bool:
    """Return whether a request is invalid; with a weight it has no plan, so it is checked in full."""
    try:
        bind(request._replace(sample_weight=Sent(torch.tensor(1.0))))
    except Invalid:
        return True
    return False
