"""Losses that compare images band by band, from fine to coarse detail."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.spec import Example, Prediction, Target, Unreduced
from service.losses.image.pixels import Pixels, correlate
from service.losses.image.sizes import halvable


@loss(
    title="Laplacian pyramid",
    tasks=("image",),
    aliases=("laploss",),
    requires=(halvable("H and W that can be halved levels times, the last time from 3 pixels or more"),),
    work="predictions",
    example=Example(sizes={"C": 1, "H": 4, "W": 6}, params={"levels": 1}),
    range=(0, None),
    scales=1,
)
def laplacian_pyramid(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    levels: Annotated[int, Ge(1)] = 3,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Absolute error in bands from fine to coarse detail, the coarser ones weighing more.

    Formula:
        \sum_{j < J} 2^j \operatorname{mean} |x_j - \mathrm{up}(x_{j+1})| + 2^J \operatorname{mean} |x_J|,
        \quad x_0 = \hat y - y, \quad x_{j+1} = \mathrm{down}(x_j)

    Args:
        predictions: Estimated images or alpha mattes.
        targets: True images or alpha mattes.
        levels: Number of bands J; what is left after them counts too.

    Use when:
        Generated images or mattes should agree in their large shapes and in their texture.

    Pitfalls:
        Libraries differ in the filter, in the weights and in whether the residual counts, so that values do
        not carry over. Here each band is averaged, weighs twice the finer one, and the residual is kept. The
        filter is the binomial 1 4 6 4 1 over 16, mirrored at the border.

    Sources:
        - Burt and Adelson (1983), The Laplacian Pyramid as a Compact Image Code,
          https://doi.org/10.1109/TCOM.1983.1095851
        - Hou and Liu (2019), Context-Aware Image Matting for Simultaneous Foreground and Alpha Estimation,
          https://arxiv.org/abs/1909.09725
    """
    # the pyramid is linear: one of the difference is the difference of two
    image = predictions - targets
    binomial = constant((1, 4, 6, 4, 1), image) / 16
    total = torch.zeros_like(image[:, 0, 0, 0])
    for level in range(levels):
        coarser = correlate(_mirrored(image), binomial, stride=2)
        # doubled in both directions: three of four pixels are zeros
        blurred = correlate(_mirrored(_spread(coarser)), 2 * binomial)
        total = total + 2**level * (image - blurred).abs().mean(dim=(1, 2, 3))
        image = coarser
    return total + 2**levels * image.abs().mean(dim=(1, 2, 3))


def _mirrored(images: Tensor) -> Tensor:
    """Continue images by two pixels, mirrored at their border pixels."""
    return F.pad(images, (2, 2, 2, 2), mode="reflect")


def _spread(images: Tensor) -> Tensor:
    """Put a zero after every pixel, and a row of them after every row."""
    wide = torch.stack([images, torch.zeros_like(images)], -1).flatten(-2)
    return torch.stack([wide, torch.zeros_like(wide)], -2).flatten(-3, -2)
