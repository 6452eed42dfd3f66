"""Distances between embeddings: exact for near points, in value and slope."""

import pytest
import torch
from torch import Tensor

from service.losses.metric_learning.heads import sub_center_arcface
from service.losses.metric_learning.pairwise import distances


@pytest.mark.parametrize("gap", [0.0, 1e-7, 1e-5, 1e-3])
def test_slopes_of_near_points_in_float32_equal_those_in_float64(gap: float) -> None:
    rng = torch.Generator().manual_seed(0)
    points, upstream = torch.randn(20, 8, generator=rng), torch.randn(20, 20, generator=rng)
    points[1:4] = points[0]
    points[1, 3] *= 1 + gap
    torch.testing.assert_close(
        _slopes(points, upstream).double(), _slopes(points.double(), upstream.double()), rtol=1e-5, atol=1e-5
    )


def test_points_at_one_place_have_distance_and_slope_zero() -> None:
    for dtype in (torch.float32, torch.float64):
        points = torch.full((3, 2), 0.1, dtype=dtype)
        assert (distances(points, points) == 0).all()
        assert (_slopes(points, torch.ones(3, 3, dtype=dtype)) == 0).all()


def test_the_nearest_of_close_sub_centres_is_the_same_in_float32_as_in_float64() -> None:
    rng = torch.Generator().manual_seed(0)
    embeddings, prototypes = (
        torch.randn(64, 4, generator=rng) + 1000,
        torch.randn(3, 3, 4, generator=rng) + 1000,
    )
    targets = torch.arange(64) % 3
    found = sub_center_arcface(embeddings, prototypes, targets)
    exact = sub_center_arcface(embeddings.double(), prototypes.double(), targets)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0.0)


def _slopes(points: Tensor, upstream: Tensor) -> Tensor:
    """Return the gradient of the weighted sum of all distances."""
    leaf = points.clone().requires_grad_()
    return torch.autograd.grad((distances(leaf, leaf) * upstream).sum(), leaf)[0]
