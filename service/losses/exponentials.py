"""Differences of exponentials that keep the digits which the plain formula subtracts away."""

import torch
from torch import Tensor


def remaining(x: Tensor) -> Tensor:
    """Return 1 - exp(-x) of numbers of at least 0: the probability left by a surprise of x."""
    # expm1 has the digits near 0; far from it its slope, 1 plus -1 and a little, has none
    return torch.where(x < 0.5, -torch.expm1(-x), 1 - torch.exp(-x))


def convexity(x: Tensor) -> Tensor:
    """Return exp(x) - 1 - x, how far the exponential is above its tangent at 0."""
    # in float64, as the square of a small x is lost in differences of float32; by the series where in those too
    wide = x.double()
    small = wide.abs() < 1e-3
    near, far = torch.where(small, wide, 0.0), torch.where(small, 0.0, wide)
    series = near.square() / 2 * (1 + near / 3 * (1 + near / 4 * (1 + near / 5)))
    return (series + (far.expm1() - far)).to(x)
