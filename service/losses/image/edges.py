"""Losses that compare the edges and details of images: differences, Sobel and Laplacian filters."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.digits import sloped
from service.losses.image.pixels import Pixels, bordered, differences
from service.losses.image.sizes import DIFFERENCED, NOT_EMPTY


@loss(
    title="Image gradient",
    tasks=("image",),
    aliases=("gradient_l1",),
    requires=DIFFERENCED,
    range=(0, None),
    scales=1,
)
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


@loss(
    title="Gradient difference",
    tasks=("image",),
    aliases=("gdl_image",),
    requires=DIFFERENCED,
    work="predictions",
    range=(0, None),
    scales=Scales(1, params={"alpha": 1.0}),
)
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
    gaps = differences((predictions - targets).detach())
    triples = zip(differences(predictions), differences(targets), gaps, strict=True)
    errors = [_error_of_size(*triple) for triple in triples]
    along_x, along_y = (error if alpha == 1 else error**alpha for error in errors)
    return along_x.mean(dim=(1, 2, 3)) + along_y.mean(dim=(1, 2, 3))


def _error_of_size(predicted: Tensor, known: Tensor, gap: Tensor) -> Tensor:
    """Return how far the sizes of two numbers are apart, given the digits of their difference."""
    total = (predicted + known).detach()
    return sloped(
        torch.minimum(gap.abs(), total.abs()),
        (predicted, known, gap, total),
        (predicted, lambda predicted, known, gap, total: gap.sign() * total.sign() * predicted.sign()),
        (known, lambda predicted, known, gap, total: -gap.sign() * total.sign() * known.sign()),
    )


@loss(
    title="Sobel edges",
    tasks=("image",),
    aliases=("sobel",),
    keywords=(
        "edge detection",
        "edges",
    ),
    requires=NOT_EMPTY,
    work="2 predictions",
    coupled=True,
    range=(0, None),
    scales=Scales(1, params={"eps": 1e-300}),
)
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
        eps: Added under the root, which has no slope at 0 without it, in squared units of the pixels.

    Use when:
        The strength of edges matters, whatever their direction: edge maps, sharpening, fusion.

    Pitfalls:
        Blind to the direction of an edge and to the brightness on its sides: add a loss on the pixels. The
        root of `eps` hides edges weaker than it. The border repeats its pixels.

    Sources:
        - Kanopoulos et al. (1988), Design of an Image Edge Detection Filter Using the Sobel Operator,
          https://doi.org/10.1109/4.996
    """
    slopes, known_slopes = _slopes(predictions), _slopes(targets)
    strength, known_strength = (
        (along_x.square() + along_y.square() + eps).sqrt() for along_x, along_y in (slopes, known_slopes)
    )
    with torch.no_grad():
        # of the squares, made of the images' difference: the sign of an error, however small, is its slope
        triples = zip(_slopes(predictions - targets), slopes, known_slopes, strict=True)
        along_x, along_y = (gap * (slope + known) for gap, slope, known in triples)
        error = (along_x + along_y) / (strength + known_strength)
    return sloped(
        error.abs(),
        (error,),
        (strength, torch.sign),
        (known_strength, lambda error: -error.sign()),
    )


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the results of Sobel's two filters, along rows and along columns."""
    padded = bordered(images)
    # differences first, which are exact where neighbours are alike
    across, down = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    along_x = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    along_y = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return along_x / 8, along_y / 8


@loss(title="Laplacian", tasks=("image",), requires=NOT_EMPTY, coupled=True, range=(0, None), scales=1)
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
    padded = bordered(predictions - targets)
    # the kernel is the sum of 1 -2 1, the second difference, along the rows and along the columns
    return (padded[..., 1:-1, :].diff(n=2, dim=-1) + padded[..., 1:-1].diff(n=2, dim=-2)).abs()
