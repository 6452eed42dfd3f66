"""Losses that compare the gradient magnitudes of images, as quality metrics do."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.spec import Condition, Example, Prediction, Scales, Target, Unreduced
from service.losses.digits import bounded, sloped
from service.losses.image.pixels import Pixels
from service.losses.image.sizes import NOT_EMPTY
from service.losses.vectors import length

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel."""


@loss(
    title="Gradient magnitude similarity deviation",
    tasks=("image",),
    aliases=("gradient_magnitude_similarity_deviation",),
    keywords=(
        "image quality",
        "perceptual similarity",
        "image restoration",
        "super-resolution",
        "compression",
        "GMS",
    ),
    requires=(
        *NOT_EMPTY,
        Condition(
            "/inputs/predictions",
            "1 channel, or 3 of red, green and blue",
            lambda facts: facts.size("C"),
            lambda facts: facts.size("C") in (1, 3),
        ),
    ),
    example=Example(sizes={"C": 1, "H": 5, "W": 6}),
    work="2 predictions",
    range=(0, 0.5),
    unit="a deviation of ratios",
    scales=Scales(0, along=("data_range",)),
)
def gmsd(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    data_range: Annotated[float, Gt(0)] = 1.0,
    c: Annotated[float, Gt(0)] = 170 / 255**2,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Standard deviation, over the image, of how similar the strengths of its edges are to the target's.

    Formula:
        \sqrt{\operatorname{mean} (s - \operatorname{mean} s)^2}, \quad
        s = \frac{2\, m(\hat y)\, m(y) + c}{m(\hat y)^2 + m(y)^2 + c}, \quad
        m(x) = \sqrt{(P_x * x_{\downarrow 2})^2 + (P_y * x_{\downarrow 2})^2}, \quad
        P_x = \frac{1}{3} \begin{pmatrix} -1 & 0 & 1 \\ -1 & 0 & 1 \\ -1 & 0 & 1 \end{pmatrix}

    Args:
        predictions: Estimated images of one channel, or of red, green and blue, of which the brightness counts.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take.
        c: Keeps flat regions alike, for images of data range 1: the paper's 170 is for bytes.

    Use when:
        Images are judged by how unevenly their structure is damaged, at a fraction of the cost of `ssim`.

    Pitfalls:
        A deviation: damage that is the same everywhere costs 0, and so does any offset of the brightness inside
        the image. Add a loss on the pixels. Images are halved by means of 2 x 2 pixels, odd sides and borders
        continued by 0, as in piq; the original code takes the means at other pixels. The gradient is
        defined as 0 where edges vanish and at a perfect fit, where there is no derivative.

    Sources:
        - Xue et al. (2014), Gradient Magnitude Similarity Deviation: A Highly Efficient Perceptual Image Quality
          Index, https://doi.org/10.1109/TIP.2013.2293423
        - Kastryulin et al. (2022), PyTorch Image Quality: Metrics for Image Quality Assessment,
          https://arxiv.org/abs/2208.14818
    """
    slopes, known_slopes = (_slopes(images, data_range) for images in (predictions, targets))
    # of the squares, made of the images' difference: their own would cancel where images are alike
    apart = (_slopes((predictions - targets).detach(), data_range) * (slopes + known_slopes).detach()).sum(-1)
    differences = _dissimilarity(length(slopes), length(known_slopes), apart, c).flatten(1)
    deviations = differences - differences.mean(-1, keepdim=True)
    return bounded(length(deviations) / differences.shape[-1] ** 0.5, 0, 0.5).to(predictions)


def _slopes(images: Tensor, data_range: float) -> Tensor:
    """Return the results of Prewitt's two filters on the brightness at half the resolution, in float64."""
    if images.shape[1] == 3:
        images = (images * constant(LUMA, images)[:, None, None]).sum(1, keepdim=True)
    height, width = images.shape[-2:]
    halved = F.avg_pool2d(F.pad(images, (0, width % 2, 0, height % 2)), 2).double() / data_range
    padded = F.pad(halved, (1, 1, 1, 1))
    across, down = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    along_x = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    along_y = down[..., :-2] + down[..., 1:-1] + down[..., 2:]
    return torch.stack([along_x, along_y], -1) / 3


def _dissimilarity(strength: Tensor, known: Tensor, apart: Tensor, c: float) -> Tensor:
    """Return one minus the similarity of two strengths, whose squares are ``apart``: (a - b)^2 / (a^2 + b^2 + c)."""
    total = (strength + known).detach()
    error = apart / torch.where(total > 0, total, 1.0)
    size = (strength.square() + known.square() + c).detach()
    return sloped(
        error.square() / size,
        (error, strength, known, total, size),
        (strength, lambda e, a, b, total, size: 2 * e / size * ((b * total + c) / size)),
        (known, lambda e, a, b, total, size: -2 * e / size * ((a * total + c) / size)),
    )
