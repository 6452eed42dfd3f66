"""Restored and generated images beside the true ones: errors of pixels, and structure in windows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.domains import Above
from service.catalogue.metric import Undefined, Value, Weights, metric
from service.catalogue.rounds import rounds
from service.catalogue.spec import Condition, Example, Form, Params, Prediction, SizeRange, Target, Values
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, each_of, mean_of, ratio

PIXELS = 1 << 21
"""Pixels to compare at once, which bounds the memory for intermediate maps."""
Predicted = Annotated[Tensor, Prediction((Form("N C H W"),))]
True_ = Annotated[Tensor, Target((Form("N C H W"),))]
DataRange = Annotated[float, Gt(0)]
NOT_EMPTY = tuple(SizeRange(dim, least=1) for dim in "CHW")
ODD = Condition(
    "/params/window_size",
    "an odd window_size",
    lambda facts: facts.params["window_size"],
    lambda facts: facts.params["window_size"] % 2 == 1,
)


def _fits(expected: str) -> Condition:
    """Return the condition that the window fits into images, if there are any, at every scale if there are ``weights``."""

    def least(params: Params) -> int:
        return params["window_size"] << min(max(0, len(params.get("weights", (1.0,))) - 1), 62)

    return Condition(
        "/inputs/predictions",
        expected,
        lambda facts: f"{facts.size('H')} x {facts.size('W')}",
        lambda facts: not facts.size("N") or min(facts.size("H"), facts.size("W")) >= least(facts.params),
    )


def _finish_psnr(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Average the decibels of images; an image without an error has infinitely many."""
    values, exact = _decibels(rows, params), rows["error"] == 0

    def run(weights: Weights) -> Value:
        if (exact & (weights > 0)).any():
            return Undefined("an image equals its target, so its ratio is infinite")
        counted = weights > 0
        total = float((weights[counted] * values[counted]).sum())
        return ratio(total, float(weights.sum()), "there are no images")

    return run


def _decibels(rows: Table, params: Params) -> Array:
    """Return the ratio of each image, NaN where it is infinite."""
    errors = np.where(rows["error"] > 0, rows["error"], np.nan)
    return 20 * np.log10(params["data_range"]) - 10 * np.log10(errors)


@metric(
    title="PSNR",
    tasks=("image",),
    aliases=("peak_signal_noise_ratio",),
    keywords=("image restoration", "super-resolution", "denoising", "compression"),
    finish=_finish_psnr,
    each=_decibels,
    signed=("data_range",),
    requires=NOT_EMPTY,
    example=Example(params={"data_range": 1.0}),
    work="2 predictions",
)
def psnr(predictions: Predicted, targets: True_, *, data_range: DataRange) -> Columns:
    r"""Peak signal-to-noise ratio: the squared range of pixels over their mean squared error, in decibels.

    Formula:
        \frac{1}{N} \sum_n 10 \log_{10} \frac{\mathrm{data\_range}^2}{\frac{1}{CHW} \sum_i (\hat y_{ni} - y_{ni})^2}

    Args:
        predictions: Estimated images.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take: 1, or 255 for bytes.

    Use when:
        Restored, compressed or enlarged images are compared, beside a measure of structure.

    Pitfalls:
        The mean of the images' ratios, not the ratio of their mean error. An image that equals its target has an infinite
        ratio, so there is no mean. A wrong `data_range` shifts every value.

    Sources:
        - Wang and Bovik (2009), Mean Squared Error: Love It or Leave It?, https://doi.org/10.1109/MSP.2008.930649
    """
    errors = [_mean((first - second).square()) for first, second in _pairs(predictions, targets)]
    return {"error": _joined(errors)}


@metric(
    title="SSIM",
    tasks=("image",),
    aliases=("structural_similarity",),
    keywords=("perceptual similarity", "image quality", "image restoration"),
    finish=mean_of("similarity", "there are no images"),
    each=each_of("similarity"),
    signed=("data_range",),
    requires=(*NOT_EMPTY, ODD, _fits("H and W of at least window_size")),
    example=Example(sizes={"C": 2, "H": 3, "W": 4}, params={"window_size": 3, "data_range": 1.0}),
    work="N C H W window_size/4",
)
def ssim(
    predictions: Predicted,
    targets: True_,
    *,
    data_range: DataRange,
    window_size: Annotated[int, Ge(1), Le(1 << 12)] = 11,
    sigma: Annotated[float, Gt(0)] = 1.5,
    k1: Annotated[float, Ge(0)] = 0.01,
    k2: Annotated[float, Ge(0)] = 0.03,
) -> Columns:
    r"""Structural similarity: luminance, contrast and structure in Gaussian windows.

    Formula:
        \operatorname{mean} \frac{(2 \mu_{\hat y} \mu_y + c_1)(2 \sigma_{\hat y y} + c_2)}
        {(\mu_{\hat y}^2 + \mu_y^2 + c_1)(\sigma_{\hat y}^2 + \sigma_y^2 + c_2)},
        \quad c_i = (k_i \cdot \mathrm{data\_range})^2

    Args:
        predictions: Estimated images.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take: 1, or 255 for bytes.
        window_size: Side of the Gaussian window in pixels, odd.
        sigma: Standard deviation of the window in pixels.
        k1: Stabilises the luminance term where both images are dark.
        k2: Stabilises the contrast and structure term where both images are flat.

    Use when:
        Perceived structure matters more than exact pixel values.

    Pitfalls:
        A wrong `data_range` is the usual mistake. Only windows that lie wholly inside the image count, as in the original:
        torchmetrics and others mirror the edges, and give another number. Channels are averaged.

    Sources:
        - Wang et al. (2004), Image Quality Assessment: From Error Visibility to Structural Similarity,
          https://doi.org/10.1109/TIP.2003.819861
    """
    window = _gaussian(window_size, sigma)
    stable = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    found = [
        _mean(torch.mul(*_similarities(first, second, window, stable)))
        for first, second in _pairs(predictions, targets)
    ]
    return {"similarity": _joined(found)}


@metric(
    title="Multi-scale SSIM",
    tasks=("image",),
    aliases=("multiscale_ssim",),
    keywords=("perceptual similarity", "image quality", "compression"),
    finish=mean_of("similarity", "there are no images"),
    each=each_of("similarity"),
    signed=("data_range",),
    requires=(
        *NOT_EMPTY,
        ODD,
        Condition(
            "/params/weights",
            "at least one weight",
            lambda facts: "none",
            lambda facts: bool(facts.params["weights"]),
        ),
        _fits("H and W of at least window_size * 2^(scales - 1), with one scale a weight"),
    ),
    example=Example(
        sizes={"C": 1, "H": 6, "W": 7}, params={"window_size": 3, "weights": (0.4, 0.6), "data_range": 1.0}
    ),
    work="N C H W window_size/3",
)
def ms_ssim(
    predictions: Predicted,
    targets: True_,
    *,
    data_range: DataRange,
    window_size: Annotated[int, Ge(1), Le(1 << 12)] = 11,
    sigma: Annotated[float, Gt(0)] = 1.5,
    k1: Annotated[float, Ge(0)] = 0.01,
    k2: Annotated[float, Ge(0)] = 0.03,
    weights: Annotated[tuple[float, ...], Values("S", Above(0))] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
) -> Columns:
    r"""Structural similarity at several scales, each half as fine as the one before.

    Formula:
        \operatorname{mean}_c \prod_j \max(v_j, 0)^{w_j}, \quad
        v_j = \operatorname{mean} \frac{2 \sigma_{\hat y y} + c_2}{\sigma_{\hat y}^2 + \sigma_y^2 + c_2},
        \quad v_{\mathrm{last}} = \operatorname{mean} S

    Args:
        predictions: Estimated images.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take: 1, or 255 for bytes.
        window_size: Side of the Gaussian window in pixels, odd, the same at every scale.
        sigma: Standard deviation of the window in pixels.
        k1: Stabilises the luminance term where both images are dark.
        k2: Stabilises the contrast and structure term where both images are flat.
        weights: Exponent of each scale, the finest first; used as given, not normalised.

    Use when:
        Images are looked at from more than one distance, or single-scale similarity is too local.

    Pitfalls:
        Needs large images: 176 pixels a side by default. A scale that is negatively correlated makes the value of its channel
        0. Odd sides lose their last row or column when they are halved. Only whole windows count, see ssim.

    Sources:
        - Wang et al. (2003), Multiscale Structural Similarity for Image Quality Assessment,
          https://doi.org/10.1109/ACSSC.2003.1292216
    """
    window = _gaussian(window_size, sigma)
    stable = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    found: list[Tensor] = []
    for first, second in _pairs(predictions, targets):
        product = torch.ones(first.shape[:2], dtype=first.dtype, device=first.device)
        for scale, weight in enumerate(weights):
            if scale:
                first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
            luminance, structure = _similarities(first, second, window, stable)
            maps = luminance * structure if scale == len(weights) - 1 else structure
            product = product * maps.flatten(2).mean(2).clamp(min=0) ** weight
        found.append(_mean(product))
    return {"similarity": _joined(found)}


def _pairs(images: Tensor, others: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and others in float64, some at a time."""
    step = max(1, PIXELS // max(1, images[:1].numel()))
    for start in rounds(0, len(images), step):
        first, second = (some[start : start + step].to(torch.float64) for some in (images, others))
        yield first.contiguous(), second.contiguous()


def _joined(parts: Sequence[Tensor]) -> Array:
    """Return the values of all images; there may be none."""
    return column(torch.cat([*parts])) if parts else np.empty(0)


def _mean(maps: Tensor) -> Tensor:
    """Return the mean of each image."""
    return maps.flatten(1).mean(1)


def _gaussian(size: int, sigma: float) -> Sequence[float]:
    """Return a Gaussian window that sums to 1."""
    heights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return (heights / heights.sum()).tolist()


def _similarities(
    images: Tensor, others: Tensor, window: Sequence[float], stable: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the maps of luminance, and of contrast and structure, at all windows inside the images."""
    # variances are differences of squares, which lose digits far from 0
    centre = others.flatten(2).mean(2)[..., None, None]
    images, others = images - centre, others - centre
    mean, other = _filtered(images, window), _filtered(others, window)
    variances = _filtered(images.square() + others.square(), window) - mean.square() - other.square()
    covariance = _filtered(images * others, window) - mean * other
    # of two black or flat windows, a stabiliser of 0 makes them equal, and not 0 / 0
    c1, c2 = (max(c, torch.finfo(torch.float64).tiny) for c in stable)
    mean, other = mean + centre, other + centre
    luminance = (2 * mean * other + c1) / (mean.square() + other.square() + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _filtered(maps: Tensor, window: Sequence[float]) -> Tensor:
    """Filter rows and columns, at places where the window lies inside.

    Sums of shifted maps give each image the same to the bit, whatever others come with it; products of matrices do not.
    """
    height, width = (side - len(window) + 1 for side in maps.shape[-2:])
    rows, filtered = torch.zeros_like(maps[..., :height, :]), torch.zeros_like(maps[..., :height, :width])
    for k, weight in enumerate(window):
        rows += weight * maps[..., k : k + height, :]
    for k, weight in enumerate(window):
        filtered += weight * rows[..., k : k + width]
    return filtered
