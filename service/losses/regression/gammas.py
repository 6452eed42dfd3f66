"""How far the gamma function's logarithm and its slope are from their asymptotes, without large terms."""

from math import log, pi

import torch
from torch import Tensor

_FAR = 16.0
"""From here on the series of Stirling's formula is as exact as float64."""


def stirling_error(values: Tensor) -> Tensor:
    """Return by how much the logarithm of the gamma function exceeds Stirling's formula."""
    small, large = values.clamp(max=_FAR), values.clamp(min=_FAR)
    exact = torch.lgamma(small) - (small - 0.5) * small.log() + small - log(2 * pi) / 2
    # one of the two differs from what they are at the seam
    return exact + _series(1 / large) - _SEAM


def digamma_error(values: Tensor) -> Tensor:
    """Return by how much the digamma function exceeds the logarithm: -1 / 2z and the slope of the above."""
    small, large = values.clamp(max=_FAR), values.clamp(min=_FAR)
    exact = torch.digamma(small) - small.log()
    return exact + _digamma_series(1 / large) - _DIGAMMA_SEAM


def _series(inverse: Tensor) -> Tensor:
    square = inverse.square()
    return inverse * (
        1 / 12 + (-1 / 360 + (1 / 1260 + (-1 / 1680 + square / 1188) * square) * square) * square
    )


def _digamma_series(inverse: Tensor) -> Tensor:
    square = inverse.square()
    tail = (1 / 120 + (-1 / 252 + (1 / 240 - square / 132) * square) * square) * square
    return -inverse / 2 - square * (1 / 12 - tail)


_SEAM = _series(torch.tensor(1 / _FAR, dtype=torch.float64)).item()
_DIGAMMA_SEAM = _digamma_series(torch.tensor(1 / _FAR, dtype=torch.float64)).item()
