"""Stacks: calls in their order, whole, in pieces and one by one."""

import pytest
import torch
from torch import Tensor

from service.engine.call import Call, Sent
from service.engine.stack import Stack, stacked
from service.losses import CATALOGUE
from tests.conformance.cases import variants

VARIANT = variants(CATALOGUE["cross_entropy"])[0]


def calls(count: int) -> list[Call]:
    """Return calls, each with different weights and upstream gradients."""
    plain = VARIANT.call(0, reduction="none")
    shape = plain.inputs["targets"].shape
    return [
        VARIANT.call(
            number,
            reduction="none",
            sample_weight=Sent(torch.full(shape, 1.0 + number)),
            grad_output=Sent(torch.full(shape, -1.0 - number)),
        )
        for number in range(count)
    ]


def tensors(call: Call) -> dict[str, Tensor | None]:
    return {**call.inputs, "weight": call.sample_weight, "upstream": call.grad_output}


def assert_same(stack: Stack, expected: list[Call]) -> None:
    assert len(stack) == len(expected)
    for found, call in zip(stack, expected, strict=True):
        for name, tensor in tensors(found).items():
            wanted = tensors(call)[name]
            assert tensor is not None
            assert wanted is not None
            assert torch.equal(tensor, wanted), name


def test_a_stack_has_the_calls_that_it_was_made_of_in_their_order() -> None:
    made = calls(5)
    assert_same(stacked(made), made)
    assert_same(stacked([stacked(made[:2]), made[2], stacked(made[3:])]), made)


@pytest.mark.parametrize("count", [1, 2, 6, 7])
@pytest.mark.parametrize("most", [1, 2, 3, 6, 7, 100])
def test_its_pieces_are_all_of_it_and_none_is_too_large(count: int, most: int) -> None:
    made = calls(count)
    pieces = stacked(made).pieces(most)
    assert [len(piece) for piece in pieces[:-1]] == [most] * (len(pieces) - 1)
    assert 1 <= len(pieces[-1]) <= most
    start = 0
    for piece in pieces:
        assert_same(piece, made[start : start + len(piece)])
        start += len(piece)
    assert start == count
