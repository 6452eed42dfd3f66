"""Images as the losses of this family see them: how they are drawn, differenced and filtered."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Facts, Real
from service.catalogue.spec import Form, Prediction, Target


@dataclass(frozen=True, slots=True)
class Pixels(Real):
    """Any number, drawn from 0 to 1; ``like`` names the input of which a noisy copy is drawn."""

    like: str | None = None

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        noise = torch.rand(shape, generator=rng, dtype=torch.float64)
        return noise if self.like is None else 0.7 * facts.inputs[self.like] + 0.3 * noise


ImagesOrVolumes = Annotated[Tensor, Prediction([Form("N C H W", Pixels()), Form("N C D H W", Pixels())])]
"""Estimated images, or volumes."""

TrueImagesOrVolumes = Annotated[
    Tensor,
    Target([Form("N C H W", Pixels(like="predictions")), Form("N C D H W", Pixels(like="predictions"))]),
]
"""True images, or volumes."""


def differences(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each pixel differs from the next one in its row, and in its column."""
    return images.diff(dim=-1), images.diff(dim=-2)


def bordered(images: Tensor) -> Tensor:
    """Repeat the pixels at the border of images, or of none: torch pads no empty ones."""
    wide = torch.cat([images[..., :1], images, images[..., -1:]], dim=-1)
    return torch.cat([wide[..., :1, :], wide, wide[..., -1:, :]], dim=-2)


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """Return a Gaussian of ``size`` pixels that sums to 1, in the dtype and on the device of ``like``."""
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    return (-(offsets**2) / (2 * sigma**2)).softmax(0)


def correlate(images: Tensor, window: Tensor, stride: int = 1, axes: int = 2) -> Tensor:
    """Correlate every channel with ``window`` along each of its last ``axes``, at places ``stride`` apart.

    A NaN among the pixels of a channel may reach all of its results.
    """
    for axis in range(-1, -1 - axes, -1):
        images = _correlate_rows(images.transpose(axis, -1), window, stride).transpose(axis, -1)
    return images


BLOCK = 128
"""How many results one product gives at most: more waste arithmetic on zeros, fewer are slow to start."""


def _correlate_rows(images: Tensor, window: Tensor, stride: int) -> Tensor:
    """Correlate along the last axis, as products of overlapping blocks with a banded matrix.

    A convolution of single channels takes a CPU several times as long, and a GPU rounds it to TF32.
    """
    width, size = images.shape[-1], len(window)
    count = (width - size) // stride + 1
    block = min(count, BLOCK)
    reach = (block - 1) * stride + size
    missing = -(-count // block) * block * stride - stride + size - width
    blocks = F.pad(images, (0, max(0, missing))).unfold(-1, reach, block * stride)
    return (blocks @ _band(window, reach, stride)).flatten(-2)[..., :count]


def _band(window: Tensor, side: int, stride: int) -> Tensor:
    """Return the matrix of ``side`` rows whose columns hold the window, each ``stride`` below the last."""
    starts = torch.arange(0, side - len(window) + 1, stride, device=window.device)
    place = torch.arange(side, device=window.device)[:, None] - starts
    inside = (place >= 0) & (place < len(window))
    return torch.where(inside, window[place.clamp(0, len(window) - 1)], 0.0)
