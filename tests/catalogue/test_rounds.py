"""Loops end once nobody waits, forwards and backwards."""

import pytest
import torch

from service.catalogue.rounds import Abandoned, ended_by, go_on, lasting, rounds


def test_a_loop_is_a_range_where_nobody_asks() -> None:
    assert [*rounds(3)] == [0, 1, 2]
    assert [*rounds(1, 9, 4)] == [1, 5]
    go_on()


def test_a_loop_ends_in_the_round_in_which_it_is_abandoned() -> None:
    done: list[int] = []
    with pytest.raises(Abandoned), ended_by(lambda: len(done) == 3):
        done.extend(rounds(10))
    with ended_by(lambda: False):
        assert [*rounds(1, 3)] == [1, 2]
    assert [*rounds(2)] == [0, 1]


def test_the_gradient_of_a_loop_ends_too() -> None:
    looks = [0]

    def abandoned() -> bool:
        looks[0] += 1
        return looks[0] > 15

    state = leaf = torch.ones(2, requires_grad=True)
    with ended_by(abandoned):
        for _ in rounds(10):
            state = lasting(state * 2)
    with pytest.raises(Abandoned):
        state.sum().backward()
    assert leaf.grad is None
    assert looks == [16]
