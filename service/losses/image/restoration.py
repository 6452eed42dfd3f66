"""Losses on the pixels, the total variation and the spectrum of an image: denoising, super-resolution."""

from math import log, log10
from typing import Annotated, Any, Literal, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.digits import sloped
from service.losses.image.pixels import Pixels, differences
from service.losses.image.sizes import DIFFERENCED, NOT_EMPTY


@loss(
    title="Negative PSNR",
    tasks=("image",),
    aliases=("negative_psnr",),
    keywords=(
        "image quality",
        "super-resolution",
        "denoising",
        "compression",
    ),
    range=lambda params: (10 * log10(params["eps"]), None),
    scales=Scales(0, along=("data_range",)),
)
def psnr(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    data_range: Annotated[float, Gt(0)] = 1.0,
    eps: Annotated[float, Gt(0)] = 1e-8,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Minus the peak signal-to-noise ratio in decibels: squared error on the scale of reports.

    Formula:
        10 \log_{10} \left( \frac{\operatorname{mean} (\hat y - y)^2}{\mathrm{data\_range}^2}
        + \varepsilon \right)

    Args:
        predictions: Estimated images.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take.
        eps: Added to the relative error: the floor of the loss is 10 log10 of it.

    Use when:
        Results are reported as PSNR, and each image should count by its relative, not its absolute, error.

    Pitfalls:
        Computed image by image and then averaged: the PSNR of a batch's pooled error is another number. Two
        identical images give -80 dB, set by `eps`, not minus infinity. `data_range` must fit the pixels.

    Sources:
        - Huynh-Thu and Ghanbari (2008), Scope of Validity of PSNR in Image/Video Quality Assessment,
          https://doi.org/10.1049/el:20080522
    """
    relative = ((predictions - targets) / data_range).detach()
    # in float64, which holds an eps that is below float32
    power = relative.square().mean(dim=(1, 2, 3)).double() + eps
    share = 20 / (log(10) * data_range * max(1, relative[:1].numel())) / power
    # finite, so that an error of 0 takes 0 times it
    share = share.clamp(max=torch.finfo(relative.dtype).max).to(relative.dtype)[:, None, None, None]
    return sloped(
        10 * power.log10().to(relative.dtype),
        (relative, share),
        (predictions, lambda relative, share: relative * share),
        (targets, lambda relative, share: -relative * share),
    )


@loss(
    title="Total variation",
    tasks=("image",),
    aliases=("tv",),
    keywords=(
        "denoising",
        "smoothness",
        "style transfer",
        "regularization",
    ),
    requires=DIFFERENCED,
    work="predictions",
    range=(0, None),
)
def total_variation(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    *,
    norm: Literal["l1", "l2", "l2_squared"] = "l1",
    pixel_reduction: Literal["sum", "mean"] = "sum",
    eps: Annotated[float, Gt(0)] = 1e-8,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""How much neighbouring pixels differ: a regulariser that removes noise and keeps edges.

    Formula:
        R\,|\partial_x \hat y| + R\,|\partial_y \hat y|, \quad
        R \sqrt{(\partial_x \hat y)^2 + (\partial_y \hat y)^2 + \varepsilon}
        \quad \text{or} \quad R\,(\partial_x \hat y)^2 + R\,(\partial_y \hat y)^2

    Args:
        predictions: Estimated images.
        norm: `l1` adds the two absolute differences of a pixel, `l2` takes the length of its gradient,
            `l2_squared` adds the two squares.
        pixel_reduction: Whether R sums or averages over the channels and pixels of a map of differences.
        eps: Added under the root of `l2`, which has no slope at 0 without it, in squared units of the pixels.

    Use when:
        An image should be smooth except at a few sharp edges; add it to a loss that ties the image to the data.

    Pitfalls:
        The sum grows with the size of the image, and so does its weight against other losses: `mean` does
        not. `l2_squared` blurs edges, `l1` prefers edges along the axes. `l2` leaves out the last row and
        column, where one of the differences is missing.

    Sources:
        - Rudin et al. (1992), Nonlinear Total Variation Based Noise Removal Algorithms,
          https://doi.org/10.1016/0167-2789(92)90242-F
    """

    def reduced(pixels: Tensor) -> Tensor:
        return pixels.sum(dim=(1, 2, 3)) if pixel_reduction == "sum" else pixels.mean(dim=(1, 2, 3))

    dx, dy = differences(predictions)
    if norm == "l1":
        return reduced(dx.abs()) + reduced(dy.abs())
    if norm == "l2_squared":
        return reduced(dx.square()) + reduced(dy.square())
    return reduced((dx[..., :-1, :].square() + dy[..., :-1].square() + eps).sqrt())


@loss(
    title="Charbonnier",
    tasks=("image",),
    aliases=("charbonnier_l1",),
    keywords=(
        "super-resolution",
        "denoising",
        "deblurring",
        "image restoration",
        "optical flow",
    ),
    range=lambda params: (params["eps"], None),
    scales=Scales(1, along=("eps",)),
)
def charbonnier(
    predictions: Annotated[Tensor, Prediction("...", Pixels())],
    targets: Annotated[Tensor, Target("...", Pixels(like="predictions"))],
    *,
    eps: Annotated[float, Gt(0)] = 1e-3,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Absolute error with a rounded tip: robust like L1, smooth at zero.

    Formula:
        \sqrt{(\hat y - y)^2 + \varepsilon^2}

    Args:
        predictions: Estimated values.
        targets: True values.
        eps: Error below which the loss is a parabola, and the loss of a perfect prediction, in the unit of the
            values.

    Use when:
        Images are restored or upscaled, and squared error makes them blurry.

    Pitfalls:
        A perfect prediction costs `eps`, not 0. Some libraries fix `eps` at 1 and subtract it again.

    Sources:
        - Charbonnier et al. (1994), Two Deterministic Half-Quadratic Regularization Algorithms for Computed
          Imaging, https://doi.org/10.1109/ICIP.1994.413553
        - Lai et al. (2017), Deep Laplacian Pyramid Networks for Super-Resolution,
          https://arxiv.org/abs/1704.03915
    """
    error = predictions - targets
    # hypot keeps an eps whose square would vanish beside 1, or in float32 altogether
    return torch.hypot(error, constant(eps, error))


@loss(
    title="Focal frequency",
    tasks=("image",),
    aliases=("ffl",),
    keywords=(
        "image generation",
        "spectrum",
        "Fourier",
    ),
    exact_gradient=False,
    requires=NOT_EMPTY,
    work="predictions",
    coupled=True,
    range=(0, None),
    scales=2,
)
def focal_frequency(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    alpha: Annotated[float, Ge(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N C H W")]:
    r"""Squared error of the spectrum, weighted towards the frequencies that are hardest to match.

    Formula:
        w\,|d|^2, \quad d = \mathcal F(\hat y) - \mathcal F(y),
        \quad w = \left( \frac{|d|}{\max |d|} \right)^{\alpha}

    Args:
        predictions: Estimated images.
        targets: True images.
        alpha: How strongly the largest differences are favoured; at 0 all frequencies count the same.

    Use when:
        Generated images lack fine detail or show periodic artefacts that pixel losses do not see.

    Pitfalls:
        The weight is a constant in the gradient, which is therefore not the derivative of the value. The
        result has one loss for each frequency, not for each pixel. The transform is orthonormal and the
        maximum is taken image by image and channel by channel.

    Sources:
        - Jiang et al. (2021), Focal Frequency Loss for Image Reconstruction and Synthesis,
          https://arxiv.org/abs/2012.12821
    """
    error = predictions - targets
    if error.numel() == 0:
        # no library transforms nothing
        return error
    # the transform is linear: one of the error is the difference of two; torch leaves the function untyped
    difference: Tensor = cast(Any, torch.fft).fft2(error, norm="ortho")
    power = difference.real.square() + difference.imag.square()
    largest = power.detach().amax(dim=(-2, -1), keepdim=True)
    share = power.detach() / torch.where(largest == 0, 1.0, largest)
    return share ** (alpha / 2) * power
