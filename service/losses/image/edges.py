"""Losses that compare the edges and details of images: differences, Sobel and Laplacian filters, pyramids."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Example, Prediction, Target, Unreduced
from service.losses.image.pixels import Pixels, correlate, differences
from service.losses.image.sizes import DIFFERENCED, NOT_EMPTY, halvable


@loss(title="Image gradient", tasks=("image",), aliases=("gradient_l1",), requires=DIFFERENCED)
def image_gradient(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Absolute error of the differences between neighbouring pixels: keeps edges where they are.

    Formula:
        \operatorname{mean} |\partial_x \hat y - \partial_x y|
        + \operatorname{mean} |\partial_y \hat y - \partial_y y|

    Args:
        predictions: Estimated images or depth maps.
        targets: True images or depth maps.

    Use when:
        Edges must be as sharp as in the target, in depth maps and restored images.

    Pitfalls:
        Blind to a constant offset of the whole image: add a loss on the pixels.

    Sources:
        - Hu et al. (2019), Revisiting Single Image Depth Estimation, https://arxiv.org/abs/1803.08673
    """
    dx, dy = differences(predictions - targets)
    return dx.abs().mean(dim=(1, 2, 3)) + dy.abs().mean(dim=(1, 2, 3))


@loss(title="Gradient difference", tasks=("image",), aliases=("gdl_image",), requires=DIFFERENCED)
def gradient_difference(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    alpha: Annotated[float, Ge(1)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Error of the sizes of the differences between neighbouring pixels: sharper video frames.

    Formula:
        \operatorname{mean} \bigl| |\partial_x \hat y| - |\partial_x y| \bigr|^{\alpha}
        + \operatorname{mean} \bigl| |\partial_y \hat y| - |\partial_y y| \bigr|^{\alpha}

    Args:
        predictions: Estimated frames.
        targets: True frames.
        alpha: Power of the error; larger ones punish the worst edges more.

    Use when:
        Predicted frames are blurry although their pixel error is small.

    Pitfalls:
        Compares sizes only: an edge from dark to bright passes for one from bright to dark, and an offset of
        the whole image is not seen either. Add a loss on the pixels.

    Sources:
        - Mathieu et al. (2016), Deep Multi-Scale Video Prediction beyond Mean Square Error,
          https://arxiv.org/abs/1511.05440
    """
    pairs = zip(differences(predictions), differences(targets), strict=True)
    along_x, along_y = ((p.abs() - t.abs()).abs() ** alpha for p, t in pairs)
    return along_x.mean(dim=(1, 2, 3)) + along_y.mean(dim=(1, 2, 3))


@loss(title="Sobel edges", tasks=("image",), aliases=("sobel",), requires=NOT_EMPTY)
def sobel_edge(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    eps: Annotated[float, Gt(0)] = 1e-6,
) -> Annotated[Tensor, Unreduced("N C H W")]:
    r"""Absolute error of the edge strength that the Sobel filter finds at each pixel.

    Formula:
        |G(\hat y) - G(y)|, \quad G(x) = \sqrt{(S_x * x)^2 + (S_y * x)^2 + \varepsilon},
        \quad S_x = \frac{1}{8} \begin{pmatrix} -1 & 0 & 1 \\ -2 & 0 & 2 \\ -1 & 0 & 1 \end{pmatrix}

    Args:
        predictions: Estimated images.
        targets: True images.
        eps: Added under the root, which has no slope at 0 without it.

    Use when:
        The strength of edges matters, whatever their direction: edge maps, sharpening, fusion.

    Pitfalls:
        Blind to the direction of an edge and to the brightness on its sides: add a loss on the pixels. The
        root of `eps` hides edges weaker than it. The border repeats its pixels.

    Sources:
        - Kanopoulos et al. (1988), Design of an Image Edge Detection Filter Using the Sobel Operator,
          https://doi.org/10.1109/4.996
    """

    def slope(images: Tensor) -> Tensor:
        smooth = images[..., :-2, :] + 2 * images[..., 1:-1, :] + images[..., 2:, :]
        return (smooth[..., 2:] - smooth[..., :-2]) / 8

    def strength(images: Tensor) -> Tensor:
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        return (slope(padded).square() + slope(padded.mT).mT.square() + eps).sqrt()

    return (strength(predictions) - strength(targets)).abs()


@loss(title="Laplacian", tasks=("image",), requires=NOT_EMPTY)
def laplacian(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
) -> Annotated[Tensor, Unreduced("N C H W")]:
    r"""Absolute error of the Laplacian, how each pixel differs from its four neighbours: fine detail.

    Formula:
        |L * (\hat y - y)|, \quad
        L = \begin{pmatrix} 0 & 1 & 0 \\ 1 & -4 & 1 \\ 0 & 1 & 0 \end{pmatrix}

    Args:
        predictions: Estimated images or alpha mattes.
        targets: True images or alpha mattes.

    Use when:
        Hair, texture and other fine detail must survive.

    Pitfalls:
        Blind to offsets and to even slopes, and it amplifies noise in the targets: add a loss on the pixels.
        The border repeats its pixels.

    Sources:
        - Marr and Hildreth (1980), Theory of Edge Detection, https://doi.org/10.1098/rspb.1980.0020
    """
    padded = F.pad(predictions - targets, (1, 1, 1, 1), mode="replicate")
    # the kernel is the sum of 1 -2 1, the second difference, along the rows and along the columns
    return (padded[..., 1:-1, :].diff(n=2, dim=-1) + padded[..., 1:-1].diff(n=2, dim=-2)).abs()


@loss(
    title="Laplacian pyramid",
    tasks=("image",),
    aliases=("laploss",),
    requires=(halvable("H and W that can be halved levels times, the last time from 3 pixels or more"),),
    example=Example(sizes={"C": 1, "H": 4, "W": 6}, params={"levels": 1}),
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
    binomial = image.new_tensor([1, 4, 6, 4, 1]) / 16
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
