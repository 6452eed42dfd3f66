"""Lengths and angles: of vectors of any size, of nearly equal ones, and of the zero vector."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from service.losses.graph.contrast import scaled_cosine_error
from service.losses.metric_learning.pairs import cosine_distance, cosine_embedding
from service.losses.vectors import length, one_minus_cosine, unit

Measure = Callable[[Tensor, Tensor], Tensor]
SIZES = (1e-30, 1e-24, 1e-9, 1.0, 3e19, 1e30)


@pytest.mark.parametrize("size", SIZES)
def test_a_distance_of_directions_knows_no_size(size: float) -> None:
    vectors = torch.tensor([[3.0, 4.0]]) * size
    partners = torch.tensor([[4.0, 3.0]]) / size
    value, slope = _differentiated(one_minus_cosine, vectors, partners)
    torch.testing.assert_close(value, torch.tensor([1 / 25]), rtol=1e-6, atol=0.0)
    # across the vector: (3, 4) turns to (4, -3) / 5
    expected = torch.tensor([[-28.0, 21.0]]) / 625 / size
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("gap", [1e-6, 1e-4, 1e-2])
def test_a_small_angle_keeps_its_digits(gap: float) -> None:
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, 16, generator=rng)
    partners = 3 * vectors * (1 + gap * torch.randn(20, 16, generator=rng))
    found = _differentiated(one_minus_cosine, vectors, partners)
    exact = _differentiated(one_minus_cosine, vectors.double(), partners.double())
    assert (found[0] > 0).all()
    for here, truth in zip(found, exact, strict=True):
        torch.testing.assert_close(here.double(), truth, rtol=1e-5, atol=1e-6 * truth.abs().max().item())


@pytest.mark.parametrize("loss", [cosine_distance, scaled_cosine_error])
def test_a_zero_vector_is_at_distance_one_without_a_slope(loss: Measure) -> None:
    vectors = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    partners = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    value, slope = _differentiated(loss, vectors, partners)
    assert value.tolist() == [1, 1, 1]
    assert (slope == 0).all()


def test_equal_vectors_are_no_angle_apart() -> None:
    vectors = torch.randn(100, 33, generator=torch.Generator().manual_seed(0))
    assert (one_minus_cosine(vectors, vectors) == 0).all()
    assert (one_minus_cosine(vectors, -vectors) <= 2).all()
    assert (cosine_embedding(vectors, 7 * vectors, torch.ones(100)) >= 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_length_neither_overflows_nor_vanishes(size: float) -> None:
    value, slope = _differentiated(_lengths, torch.tensor([[3.0, 4.0]]) * size, torch.empty(0))
    torch.testing.assert_close(value, torch.tensor([5.0]) * size, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(slope, torch.tensor([[0.6, 0.8]]), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("size", SIZES)
def test_a_unit_vector_knows_no_size(size: float) -> None:
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    torch.testing.assert_close(
        unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * size), expected, rtol=1e-6, atol=0.0
    )


def test_calls_measured_together_equal_calls_measured_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    vectors, partners = torch.randn(3, 4, 5, generator=rng), torch.randn(3, 4, 5, generator=rng)
    together = torch.func.vmap(one_minus_cosine)(vectors, partners)
    torch.testing.assert_close(together, torch.stack(list(map(one_minus_cosine, vectors, partners))))
    shared = torch.func.vmap(one_minus_cosine, in_dims=(0, None))(vectors, partners[0])
    torch.testing.assert_close(shared[1], one_minus_cosine(vectors[1], partners[0]))
    torch.testing.assert_close(torch.func.vmap(length)(vectors), length(vectors))


def _lengths(vectors: Tensor, _: Tensor) -> Tensor:
    """Return the lengths of vectors."""
    return length(vectors)


def _differentiated(function: Measure, vectors: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function of vectors, and the gradient of its sum by them."""
    leaf = vectors.clone().requires_grad_()
    value = function(leaf, partners)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]
