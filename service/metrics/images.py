"""Restored and generated images beside the true ones: errors of pixels, and structure in windows."""

from collections.abc import Callable, Iterator, Sequence
from math import frexp, ldexp
from typing import Annotated, Any

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
from service.metrics.finishes import column, each_of, finite, mean_of

PIXELS = 1 << 21
"""Pixels to compare at once, which bounds the memory for intermediate maps."""
Predicted = Annotated[Tensor, Prediction((Form("N C H W"),))]
True_ = Annotated[Tensor, Target((Form("N C H W"),))]
DataRange = Annotated[float, Gt(0)]
EQUAL = "equals its target, or its error is too small for float64, so the ratio is infinite"
Stabiliser = Annotated[float, Ge(0), Le(1)]
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
    """Average the decibels of images, or as torchmetrics take those of the mean error of all pixels."""
    known, (errors,) = finite(rows["error"])
    together, pixels = params["like"] == "torchmetrics", rows["pixels"].astype(np.float64)
    values = _decibels(rows, params)

    def run(weights: Weights) -> Value:
        counted = weights > 0
        if not counted.any():
            return Undefined("there are no images")
        if not known(weights):
            return Undefined("a pixel is infinite, or its error too large for float64")
        if together:
            weights = weights * pixels
            error = float((weights * errors).sum() / weights.sum())
            return _ratio(error, params["data_range"]) if error else Undefined(f"every image {EQUAL}")
        if (counted & (errors == 0)).any():
            return Undefined(f"an image {EQUAL}")
        return float((weights[counted] * values[counted]).sum() / weights.sum())

    return run


def _decibels(rows: Table, params: Params) -> Array:
    """Return the ratio of each image, NaN where it is infinite."""
    errors = np.where((rows["error"] > 0) & np.isfinite(rows["error"]), rows["error"], np.nan)
    return _ratio(errors, params["data_range"])


def _ratio(errors: Any, data_range: float) -> Any:
    """Return decibels for errors that were computed of pixels in a unit near `data_range`."""
    mantissa, _ = frexp(data_range)
    return -10 * np.log10(errors / mantissa**2)


@metric(
    title="PSNR",
    tasks=("image",),
    aliases=("peak_signal_noise_ratio",),
    keywords=("image restoration", "super-resolution", "denoising", "compression"),
    finish=_finish_psnr,
    likes=("torchmetrics",),
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
        The mean of the images' ratios, not the ratio of their mean error, which `like` torchmetrics takes. An image that equals
        its target has an infinite ratio, so there is no mean. A wrong `data_range` shifts every value.

    Sources:
        - Wang and Bovik (2009), Mean Squared Error: Love It or Leave It?, https://doi.org/10.1109/MSP.2008.930649
    """
    _, exponent = frexp(data_range)
    pairs = _pairs(predictions, targets, -exponent)
    errors = _joined([_mean((first - second).square()) for first, second in pairs])
    return {"error": errors, "pixels": np.full(len(errors), predictions[:1].numel(), np.int64)}


@metric(
    title="SSIM",
    tasks=("image",),
    aliases=("structural_similarity",),
    keywords=("perceptual similarity", "image quality", "image restoration"),
    finish=mean_of("similarity", "there are no images", "a pixel is infinite, or too large for its square"),
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
    k1: Stabiliser = 0.01,
    k2: Stabiliser = 0.03,
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
        torchmetrics and others mirror the edges, and give another number, for which there is no `like`. Channels are averaged.

    Sources:
        - Wang et al. (2004), Image Quality Assessment: From Error Visibility to Structural Similarity,
          https://doi.org/10.1109/TIP.2003.819861
    """
    window = _gaussian(window_size, sigma)
    _, exponent = frexp(data_range)
    stable = (k1 * ldexp(data_range, -exponent)) ** 2, (k2 * ldexp(data_range, -exponent)) ** 2
    found = [
        _mean(torch.mul(*_similarities(first, second, window, stable)))
        for first, second in _pairs(predictions, targets, -exponent)
    ]
    return {"similarity": _joined(found)}


@metric(
    title="Multi-scale SSIM",
    tasks=("image",),
    aliases=("multiscale_ssim",),
    keywords=("perceptual similarity", "image quality", "compression"),
    finish=mean_of("similarity", "there are no images", "a pixel is infinite, or too large for its square"),
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
    k1: Stabiliser = 0.01,
    k2: Stabiliser = 0.03,
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
        0. Odd sides lose their last row or column when they are halved. Only whole windows count; torchmetrics mirrors the
        edges, for which there is no `like`.

    Sources:
        - Wang et al. (2003), Multiscale Structural Similarity for Image Quality Assessment,
          https://doi.org/10.1109/ACSSC.2003.1292216
    """
    window = _gaussian(window_size, sigma)
    _, exponent = frexp(data_range)
    stable = (k1 * ldexp(data_range, -exponent)) ** 2, (k2 * ldexp(data_range, -exponent)) ** 2
    found: list[Tensor] = []
    for first, second in _pairs(predictions, targets, -exponent):
        product = torch.ones(first.shape[:2], dtype=first.dtype, device=first.device)
        for scale, weight in enumerate(weights):
            if scale:
                first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
            luminance, structure = _similarities(first, second, window, stable)
            maps = luminance * structure if scale == len(weights) - 1 else structure
            product = product * maps.flatten(2).mean(2).clamp(min=0) ** weight
        found.append(_mean(product))
    return {"similarity": _joined(found)}


def _pairs(images: Tensor, others: Tensor, exponent: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and others in float64, times a power of two, some at a time."""
    step = max(1, PIXELS // max(1, images[:1].numel()))
    for start in rounds(0, len(images), step):
        first, second = (
            some[start : start + step].to(torch.float64).contiguous() for some in (images, others)
        )
        yield _times(first, exponent), _times(second, exponent)


def _times(images: Tensor, exponent: int) -> Tensor:
    """Return images times a power of two, which may itself be out of range."""
    half = exponent // 2
    return images * 2.0**half * 2.0 ** (exponent - half)


def _joined(parts: Sequence[Tensor]) -> Array:
    """Return the values of all images; there may be none."""
    return column(torch.cat([*parts])) if parts else np.empty(0)


def _mean(maps: Tensor) -> Tensor:
    """Return the mean of each image."""
    return maps.flatten(1).mean(1)


def _gaussian(size: int, sigma: float) -> Sequence[float]:
    """Return a Gaussian window that sums to 1."""
    with np.errstate(over="ignore"):
        heights = np.exp(-(((np.arange(size) - size // 2) / sigma) ** 2) / 2)
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
