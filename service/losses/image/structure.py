"""Losses that compare images window by window: means, variances and covariance instead of pixels."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above
from service.catalogue.spec import Condition, Example, Prediction, Target, Unreduced, Values
from service.losses.image.pixels import Pixels, correlate, gaussian_window
from service.losses.image.sizes import NOT_EMPTY, odd, window_fits


@loss(
    title="SSIM",
    tasks=("image",),
    aliases=("structural_similarity",),
    requires=(odd("window_size"), window_fits("H and W of at least window_size")),
    example=Example(sizes={"C": 2, "H": 3, "W": 4}, params={"window_size": 3}),
    work="N C H W window_size/128",
)
def ssim(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
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
        predictions: Estimated images.
        targets: True images.
        data_range: Distance from the smallest to the largest value that a pixel can take.
        window_size: Side of the Gaussian window in pixels, odd.
        sigma: Standard deviation of the window in pixels.
        k1: Stabilises the luminance term where both images are dark.
        k2: Stabilises the contrast and structure term where both images are flat.
        form: `one_minus` for 1 - S, `dssim` for half of it.

    Use when:
        Perceived structure matters more than exact pixel values.

    Pitfalls:
        A wrong `data_range` is the usual mistake: 1 for images from 0 to 1, 255 for bytes. Only windows that
        lie wholly inside the image count, as in the original; libraries that pad at the border give another
        number, and some report `dssim`.

    Sources:
        - Wang et al. (2004), Image Quality Assessment: From Error Visibility to Structural Similarity,
          https://doi.org/10.1109/TIP.2003.819861
    """
    window = gaussian_window(window_size, sigma, predictions)
    luminance, structure = _similarity(
        predictions, targets, window, (k1 * data_range) ** 2, (k2 * data_range) ** 2
    )
    distance = 1 - (luminance * structure).mean(dim=(1, 2, 3))
    return distance / 2 if form == "dssim" else distance


@loss(
    title="Multi-scale SSIM",
    tasks=("image",),
    aliases=("multiscale_ssim",),
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
    work="N C H W window_size/128",
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
    means: list[Tensor] = []
    for scale in range(len(weights)):
        if scale > 0:
            predictions, targets = F.avg_pool2d(predictions, 2), F.avg_pool2d(targets, 2)
        luminance, structure = _similarity(
            predictions, targets, window, (k1 * data_range) ** 2, (k2 * data_range) ** 2
        )
        last = scale == len(weights) - 1
        means.append((luminance * structure if last else structure).mean(dim=(2, 3)))
    scales = torch.stack(means, -1)
    # a fractional power has an infinite slope at 0: such products are taken out before it, not after
    vanishing = (scales <= 0).any(-1)
    logs = torch.where(vanishing[..., None], 1.0, scales).log()
    products = (logs * logs.new_tensor(weights)).sum(-1).exp()
    return 1 - torch.where(vanishing, 0.0, products).mean(-1)


@loss(
    title="Local normalised cross-correlation",
    tasks=("image",),
    aliases=("lncc",),
    requires=(odd("kernel_size"), *NOT_EMPTY),
    work="N C H W kernel_size/64",
)
def local_ncc(
    predictions: Annotated[Tensor, Prediction("N C H W", Pixels())],
    targets: Annotated[Tensor, Target("N C H W", Pixels(like="predictions"))],
    *,
    kernel_size: Annotated[int, Ge(1), Le(2**31 - 1)] = 3,
    smooth_nr: Annotated[float, Ge(0)] = 0.0,
    smooth_dr: Annotated[float, Gt(0)] = 1e-5,
) -> Annotated[Tensor, Unreduced("N C H W")]:
    r"""Minus the squared correlation of two images in a window around each pixel: for registration.

    Formula:
        -\frac{\left(\sum (\hat y - \bar{\hat y})(y - \bar y)\right)^2 + \mathrm{smooth\_nr}}
        {\max(\sum (\hat y - \bar{\hat y})^2, \mathrm{smooth\_dr})\,
        \max(\sum (y - \bar y)^2, \mathrm{smooth\_dr})}

    Args:
        predictions: Warped or moving images.
        targets: Fixed images.
        kernel_size: Side of the box window in pixels, odd.
        smooth_nr: Added to the numerator.
        smooth_dr: Least value of each of the two variances in the denominator.

    Use when:
        Images to be aligned show the same anatomy with locally different brightness and contrast.

    Pitfalls:
        Lies between -1, perfect, and 0. The square makes an inverted image as good as an equal one. Flat
        windows are held up by `smooth_dr`, which is in squared units of the pixels: images from 0 to 255 want
        a larger one. Beyond the border pixels are taken as 0, so that border windows always show an edge.

    Sources:
        - Balakrishnan et al. (2019), VoxelMorph: A Learning Framework for Deformable Medical Image
          Registration, https://arxiv.org/abs/1809.05231
    """

    def window_means(images: Tensor) -> Tensor:
        rows = F.avg_pool2d(images, (1, kernel_size), 1, (0, kernel_size // 2))
        return F.avg_pool2d(rows, (kernel_size, 1), 1, (kernel_size // 2, 0))

    mean_p, mean_t = window_means(predictions), window_means(targets)
    area = kernel_size**2
    cross = area * (window_means(predictions * targets) - mean_p * mean_t)
    variance_p = area * (window_means(predictions**2) - mean_p**2)
    variance_t = area * (window_means(targets**2) - mean_t**2)
    return -(cross**2 + smooth_nr) / (variance_p.clamp(min=smooth_dr) * variance_t.clamp(min=smooth_dr))


def _similarity(
    predictions: Tensor, targets: Tensor, window: Tensor, c1: float, c2: float
) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure map of SSIM, at the windows inside the image."""
    maps = torch.cat([predictions, targets, predictions**2 + targets**2, predictions * targets], dim=1)
    mean_p, mean_t, power, product = correlate(maps, window).chunk(4, dim=1)
    # only the sum of the two variances is needed, so one filter serves both
    powers = mean_p**2 + mean_t**2
    luminance = (2 * mean_p * mean_t + c1) / (powers + c1)
    return luminance, (2 * (product - mean_p * mean_t) + c2) / (power - powers + c2)
