"""Losses that compare images window by window: means, variances and covariance instead of pixels."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import Above
from service.catalogue.spec import Condition, Example, Prediction, Scales, Target, Unreduced, Values
from service.losses.digits import bounded
from service.losses.image.pixels import (
    ImagesOrVolumes,
    Pixels,
    TrueImagesOrVolumes,
    correlate,
    gaussian_window,
)
from service.losses.image.sizes import odd, window_fits


@loss(
    title="SSIM",
    tasks=("image",),
    aliases=("structural_similarity",),
    keywords=(
        "perceptual similarity",
        "image quality",
        "image restoration",
        "super-resolution",
        "denoising",
        "compression",
        "anomaly detection",
    ),
    requires=(odd("window_size"), window_fits("H and W, of volumes D too, of at least window_size")),
    example=Example(sizes={"C": 2, "H": 3, "W": 4}, params={"window_size": 3}),
    work=("N C H W window_size/128", "N C D H W window_size/128", "3 predictions"),
    range=lambda params: (0, 2 if params["form"] == "one_minus" else 1),
    unit="one minus a ratio of moments",
    scales=Scales(0, along=("data_range",)),
)
def ssim(
    predictions: ImagesOrVolumes,
    targets: TrueImagesOrVolumes,
    *,
    data_range: Annotated[float, Gt(0)] = 1.0,
    window_size: Annotated[int, Ge(1)] = 11,
    sigma: Annotated[float, Gt(0)] = 1.5,
    k1: Annotated[float, Ge(0)] = 0.01,
    k2: Annotated[float, Ge(0)] = 0.03,
    form: Literal["one_minus", "dssim"] = "one_minus",
) -> Annotated[Tensor, Unreduced("N")]:
    r"""One minus the structural similarity: luminance, contrast and structure in Gaussian windows.

    Formula:
        1 - \operatorname{mean} \frac{(2 \mu_{\hat y} \mu_y + c_1)(2 \sigma_{\hat y y} + c_2)}
        {(\mu_{\hat y}^2 + \mu_y^2 + c_1)(\sigma_{\hat y}^2 + \sigma_y^2 + c_2)},
        \quad c_i = (k_i \cdot \mathrm{data\_range})^2

    Args:
        predictions: Estimated images, or volumes.
        targets: True images, or volumes.
        data_range: Distance from the smallest to the largest value that a pixel can take.
        window_size: Side of the Gaussian window in pixels, odd; of volumes along all three axes.
        sigma: Standard deviation of the window in pixels.
        k1: Stabilises the luminance term where both images are dark.
        k2: Stabilises the contrast and structure term where both images are flat.
        form: `one_minus` for 1 - S, `dssim` for half of it.

    Use when:
        Perceived structure matters more than exact pixel values.

    Pitfalls:
        A wrong `data_range` is the usual mistake: 1 for images from 0 to 1, 255 for bytes. Only windows that
        lie wholly inside the image count, as in the original; libraries that pad at the border give another
        number, and some report `dssim`. A volume is compared in windows of three axes, which is not the mean over
        its slices.

    Sources:
        - Wang et al. (2004), Image Quality Assessment: From Error Visibility to Structural Similarity,
          https://doi.org/10.1109/TIP.2003.819861
    """
    window = gaussian_window(window_size, sigma, predictions)
    pair = _centred(predictions, targets)
    luminance, structure = _dissimilarity(pair, window, (k1 * data_range) ** 2, (k2 * data_range) ** 2)
    similarity = _either(luminance, structure)
    distance = bounded(similarity.mean(dim=tuple(range(1, similarity.dim()))), 0, 2)
    return distance / 2 if form == "dssim" else distance


@loss(
    title="Multi-scale SSIM",
    tasks=("image",),
    aliases=("multiscale_ssim",),
    keywords=(
        "perceptual similarity",
        "image quality",
        "image restoration",
        "compression",
    ),
    requires=(
        odd("window_size"),
        Condition(
            "/params/weights",
            "at least one weight",
            lambda facts: "none",
            lambda facts: bool(facts.params["weights"]),
        ),
        window_fits("H and W of at least window_size * 2^(scales - 1), with one scale a weight"),
    ),
    example=Example(sizes={"C": 1, "H": 6, "W": 7}, params={"window_size": 3, "weights": (0.4, 0.6)}),
    work=("N C H W window_size/128", "3 predictions"),
    range=(0, 1),
    unit="one minus a product of ratios of moments",
    scales=Scales(0, along=("data_range",)),
)
def ms_ssim(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    data_range: Annotated[float, Gt(0)] = 1.0,
    window_size: Annotated[int, Ge(1)] = 11,
    sigma: Annotated[float, Gt(0)] = 1.5,
    k1: Annotated[float, Ge(0)] = 0.01,
    k2: Annotated[float, Ge(0)] = 0.03,
    weights: Annotated[tuple[float, ...], Values("S", Above(0))] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
) -> Annotated[Tensor, Unreduced("N")]:
    r"""One minus the structural similarity at several scales, each half as fine as the one before.

    Formula:
        1 - \operatorname{mean}_c \prod_j v_j^{w_j}, \quad
        v_j = \operatorname{mean} \frac{2 \sigma_{\hat y y} + c_2}{\sigma_{\hat y}^2 + \sigma_y^2 + c_2},
        \quad v_{\mathrm{last}} = \operatorname{mean} S

    Args:
        predictions: Estimated images.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take.
        window_size: Side of the Gaussian window in pixels, odd, the same at every scale.
        sigma: Standard deviation of the window in pixels.
        k1: Stabilises the luminance term where both images are dark.
        k2: Stabilises the contrast and structure term where both images are flat.
        weights: Exponent of each scale, the finest first; used as given, not normalised.

    Use when:
        Images are looked at from more than one distance, or single-scale similarity is too local.

    Pitfalls:
        Needs large images: 176 pixels a side by default, less with a smaller window or fewer weights. A scale
        that is negatively correlated makes the product 0, and with it the gradient of that channel: start
        from another loss where images are still unlike each other. Odd sides lose their last row or column
        when they are halved.

    Sources:
        - Wang et al. (2003), Multiscale Structural Similarity for Image Quality Assessment,
          https://doi.org/10.1109/ACSSC.2003.1292216
    """
    window = gaussian_window(window_size, sigma, predictions)
    pair = _centred(predictions, targets)
    means: list[Tensor] = []
    for scale in range(len(weights)):
        if scale > 0:
            pair = pair.halved()
        luminance, structure = _dissimilarity(pair, window, (k1 * data_range) ** 2, (k2 * data_range) ** 2)
        last = scale == len(weights) - 1
        means.append((_either(luminance, structure) if last else structure).mean(dim=(2, 3)))
    scales = torch.stack(means, -1)
    # a fractional power has an infinite slope at 0: such products are taken out before it, not after
    vanishing = (scales >= 1).any(-1)
    logs = torch.log1p(-torch.where(vanishing[..., None], 0.0, scales))
    products = -torch.expm1((logs * constant(weights, logs)).sum(-1))
    return bounded(torch.where(vanishing, 1.0, products).mean(-1), 0, 1)


@dataclass(frozen=True)
class _Pair:
    """Images without their mean, and the differences between them and others without theirs.

    Nothing but the luminance depends on the means, and its small differences are made of the errors.
    """

    images: Tensor
    errors: Tensor
    mean: Tensor
    mean_error: Tensor

    def halved(self) -> "_Pair":
        """Return the pair at half the resolution."""
        return replace(self, images=F.avg_pool2d(self.images, 2), errors=F.avg_pool2d(self.errors, 2))


def _centred(images: Tensor, others: Tensor) -> _Pair:
    """Return images and their errors by channel."""
    errors = images - others
    space = tuple(range(2, images.dim()))
    mean, mean_error = (x.detach().mean(dim=space, keepdim=True) for x in (images, errors))
    return _Pair(images - mean, errors - mean_error, mean, mean_error)


def _dissimilarity(pair: _Pair, window: Tensor, c1: float, c2: float) -> tuple[Tensor, Tensor]:
    """Return one minus the luminance and one minus the structure map of SSIM, at the windows inside the image.

    One minus such a ratio is the squared difference of the means over the sum of their squares, and the
    variance of the error over the sum of the variances: of images that are alike, nothing cancels.
    """
    images, errors = pair.images, pair.errors
    # only the sum of the two variances is needed, so one filter serves both
    powers = images.square() + (images - errors).square()
    maps = torch.cat([images, errors, powers, errors.square()], dim=1)
    mean, mean_error, power, error_power = correlate(maps, window, axes=maps.dim() - 2).chunk(4, dim=1)
    variance_of_error = (error_power - mean_error.square()).clamp(min=0)
    variances = power - mean.square() - (mean - mean_error).square()
    # the variance of a difference is at most twice the sum, also after rounding
    variances = torch.maximum(variances, variance_of_error / 2)
    brightness, offset = mean + pair.mean, mean_error + pair.mean_error
    powers_of_means = brightness.square() + (brightness - offset).square()
    # of two black or flat windows, a stabiliser of 0 makes the difference none, and not 0 / 0
    least = torch.finfo(images.dtype).tiny
    luminance = offset.square() / (powers_of_means + max(c1, least))
    return luminance, variance_of_error / (variances + max(c2, least))


def _either(first: Tensor, second: Tensor) -> Tensor:
    """Return one minus the product of (1 - x) and (1 - y)."""
    return first + second - first * second
