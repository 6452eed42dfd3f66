"""Losses that align images whose brightness and contrast differ from place to place."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Form, Scales, SizeRange, Unreduced
from service.losses.image.pixels import ImagesOrVolumes, TrueImagesOrVolumes
from service.losses.image.sizes import NOT_EMPTY, odd

ROUNDING = torch.finfo(torch.float64).eps


@loss(
    title="Local normalised cross-correlation",
    tasks=("image",),
    aliases=("lncc",),
    keywords=(
        "image registration",
        "deformable registration",
        "medical images",
    ),
    requires=(odd("kernel_size"), *NOT_EMPTY, SizeRange("D", least=1)),
    work=("N C H W kernel_size/64", "2 N C D H W kernel_size/64", "9 predictions"),
    coupled=True,
    range=lambda params: (None if params["smooth_nr"] else -1, 0),
    scales=Scales(0, params={"smooth_dr": 1e-300}),
)
def local_ncc(
    predictions: ImagesOrVolumes,
    targets: TrueImagesOrVolumes,
    *,
    kernel_size: Annotated[int, Ge(1), Le(2**31 - 1)] = 3,
    smooth_nr: Annotated[float, Ge(0)] = 0.0,
    smooth_dr: Annotated[float, Gt(0)] = 1e-5,
) -> Annotated[Tensor, Unreduced([Form("N C D H W"), Form("N C H W")])]:
    r"""Minus the squared correlation of two images or volumes in a window around each pixel: for registration.

    Formula:
        -\frac{\left(\sum (\hat y - \bar{\hat y})(y - \bar y)\right)^2 + \mathrm{smooth\_nr}}
        {\max(\sum (\hat y - \bar{\hat y})^2, \mathrm{smooth\_dr})\,
        \max(\sum (y - \bar y)^2, \mathrm{smooth\_dr})}

    Args:
        predictions: Warped or moving images, or volumes.
        targets: Fixed images, or volumes.
        kernel_size: Side of the box window in pixels, odd; of volumes along all three axes.
        smooth_nr: Added to the numerator, in the fourth power of the pixels' unit.
        smooth_dr: Least value of each of the two variances in the denominator, in squared units of the pixels.

    Use when:
        Images to be aligned show the same anatomy with locally different brightness and contrast.

    Pitfalls:
        Lies between -1, perfect, and 0, unless `smooth_nr` adds to it. The square makes an inverted image as good as an equal one. Flat
        windows are held up by `smooth_dr`, which is in squared units of the pixels: images from 0 to 255 want
        a larger one. A window that varies by no more than float64 rounds its mean square is flat, and costs 0.
        Beyond the border pixels are taken as 0, so that border windows always show an edge.

    Sources:
        - Balakrishnan et al. (2019), VoxelMorph: A Learning Framework for Deformable Medical Image
          Registration, https://arxiv.org/abs/1809.05231
    """
    if predictions.numel() == 0:
        # torch pools nothing
        return -predictions * targets

    axes = predictions.dim() - 2
    shape, area = predictions.shape, float(kernel_size**axes)

    def window_means(images: Tensor) -> Tensor:
        # a volume is an image to each filter, of its slices or of its flattened rows and columns
        rows = F.avg_pool2d(images.flatten(1, -3), (1, kernel_size), 1, (0, kernel_size // 2))
        means = F.avg_pool2d(rows, (kernel_size, 1), 1, (kernel_size // 2, 0)).reshape(shape)
        if axes == 2:
            return means
        return F.avg_pool2d(means.flatten(-2), (kernel_size, 1), 1, (kernel_size // 2, 0)).reshape(shape)

    def variation(images: Tensor, means: Tensor) -> Tensor:
        power = window_means(images.square())
        variance = power - means.square()
        # what is not more than the rounding of the sums is that of a flat window
        return torch.where(variance <= (kernel_size * axes / 2 + 8) * ROUNDING * power, 0.0, variance * area)

    # in float64, which distinguishes a nearly flat window from a flat one far above 0
    estimated, known = predictions.double(), targets.double()
    mean_p, mean_t = window_means(estimated), window_means(known)
    variance_p, variance_t = variation(estimated, mean_p), variation(known, mean_t)
    flat = (variance_p == 0) | (variance_t == 0)
    cross = torch.where(flat, 0.0, area * (window_means(estimated * known) - mean_p * mean_t))
    least_p, least_t = variance_p.clamp(min=smooth_dr), variance_t.clamp(min=smooth_dr)
    agreement = (cross / least_p) * (cross / least_t)
    # rounding takes the squared correlation beyond 1
    correlation = agreement.clamp(max=1) + smooth_nr / least_p / least_t
    return -correlation.to(predictions.dtype)
