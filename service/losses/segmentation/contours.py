"""Distances between the contours of masks, as sums over regions that are differentiable."""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.rounds import lasting, rounds
from service.catalogue.spec import Unreduced
from service.losses.segmentation.masks import (
    CLASSES,
    PER_CLASS,
    FlatMaskLogits,
    FlatMaskTargets,
    MaskLogits,
    MaskTargets,
    Mode,
    average,
    kept,
    soft_masks,
    total,
    without_class_axis,
)


@loss(
    title="Boundary",
    tasks=("segmentation",),
    aliases=("surface",),
    keywords=(
        "boundaries",
        "contours",
        "medical image segmentation",
    ),
    joins="N",
    on_cpu=True,
    requires=CLASSES,
    work=("384 N C", "384 N", "logits", "2 targets"),
)
def boundary(
    logits: MaskLogits,
    targets: MaskTargets,
    *,
    mode: Mode = "multiclass",
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_CLASS)]:
    r"""Mean distance from the true border, weighted by probability: contours of very unbalanced masks.

    Formula:
        \frac{1}{n} \sum_i p_i\, \phi_i, \quad \phi_i = \begin{cases}
        d(i, \text{inside}) & y_i \le 0.5 \\ 1 - d(i, \text{outside}) & y_i > 0.5 \end{cases}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, cut at 0.5.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        include_background: Whether class 0 is included; the authors exclude it.
        ignore_index: Target value of pixels that do not count; they are neither inside nor outside of a mask.

    Use when:
        Beside a region loss, with a weight that grows while training: it refines borders.

    Pitfalls:
        Negative at a good fit, as probability inside the mask lowers it. A class without true pixels, or with
        nothing else, costs 0 for any prediction. Distances are Euclidean, in pixels of equal spacing, to the
        nearest valid pixel on the other side; ignored pixels may lie between. The mean is over valid pixels; an
        image without any costs 0 and still counts in the mean over images.

    Sources:
        - Kervadec et al. (2019), Boundary loss for highly unbalanced segmentation,
          https://arxiv.org/abs/1812.07032
    """
    masks = soft_masks(
        logits, targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    distances = _signed_distances(masks.truths, masks.valid)
    # inner border pixels are at distance 1 from the outside, and lie on the border itself
    levels = torch.where(distances < 0, distances + 1, distances)
    return without_class_axis(average(masks.probabilities * levels, masks.valid), mode)


@loss(
    title="Hausdorff by distance transforms",
    tasks=("segmentation",),
    aliases=("hausdorff",),
    keywords=(
        "boundaries",
        "contours",
        "medical image segmentation",
    ),
    joins="N",
    on_cpu=True,
    range=(0, None),
    requires=CLASSES,
    work=("512 N C", "512 N", "2 logits"),
)
def hausdorff_dt(
    logits: MaskLogits,
    targets: MaskTargets,
    *,
    mode: Mode = "multiclass",
    alpha: Annotated[float, Gt(0)] = 2.0,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_CLASS)]:
    r"""Squared errors weighted by their distance from both contours: against far outliers.

    Formula:
        \frac{1}{n} \sum_i (p_i - y_i)^2 \bigl(d_p(i)^\alpha + d_y(i)^\alpha\bigr),
        \quad d_x(i) \text{ the distance to the other side of the contour of } x > 0.5

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves; contours are where they
            pass 0.5.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        alpha: How strongly far errors count.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count; they are neither inside nor outside of a mask.

    Use when:
        The metric is the Hausdorff distance, and a few pixels far off spoil it.

    Pitfalls:
        Grows with the image: distances are in pixels. They are not differentiated, so predicted contours pull
        only through the squared error. A mask that is empty or full has distance 0 everywhere. Distance
        transforms run on the CPU, and are slow for many classes. Distances are to the nearest valid pixel on the other
        side; ignored pixels may lie between. The mean is over valid pixels; an image without any costs 0 and
        still counts in the mean over images.

    Sources:
        - Karimi and Salcudean (2020), Reducing the Hausdorff Distance, https://arxiv.org/abs/1904.10030
    """
    masks = soft_masks(
        logits, targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    predicted, true = (
        _signed_distances(m, masks.valid).abs() ** alpha for m in (masks.probabilities, masks.truths)
    )
    errors = (masks.false - masks.missed).square()
    return without_class_axis(average(errors * (predicted + true), masks.valid), mode)


def _signed_distances(masks: Tensor, valid: Tensor | None) -> Tensor:
    """Return each pixel's distance to the other side of its mask's contour, negative inside.

    Masks are ``[N, C, ...]``. Distances are 0 in one that is empty or full, and carry no gradient. Where pixels do not
    count, none leads to one of them, and theirs mean nothing.
    """
    insides = masks.detach() > 0.5
    outsides = ~insides if valid is None else ~insides & valid
    inside, outside = (sides.cpu().flatten(0, 1).numpy() for sides in (insides, outsides))
    distances = [_signed_distance(inside[place], outside[place]) for place in rounds(len(inside))]
    return torch.as_tensor(np.array(distances)).reshape(masks.shape).to(masks)


def _signed_distance(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the signed distances of one mask."""
    if not (inside.any() and outside.any()):
        return np.zeros(inside.shape)
    return distance_transform_edt(~inside) - distance_transform_edt(~outside)


@loss(
    title="Hausdorff by erosions",
    tasks=("segmentation",),
    range=(0, None),
    requires=CLASSES,
    work=("N C H W erosions", "N C H W erosions/3", "N H W erosions", "N H W erosions/4", "logits"),
    overhead="8192 erosions",
)
def hausdorff_er(
    logits: FlatMaskLogits,
    targets: FlatMaskTargets,
    *,
    mode: Mode = "multiclass",
    alpha: Annotated[float, Gt(0)] = 2.0,
    erosions: Annotated[int, Ge(1)] = 10,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_CLASS)]:
    r"""Squared errors that survive erosions: thick errors cost more, without a distance transform.

    Formula:
        \frac{1}{n} \sum_i \sum_{k=1}^{K} k^\alpha\, b_k(i), \quad b_0 = (p - y)^2,\;
        b_k = \mathrm{rescale}\bigl(\max(B * b_{k-1} - \tfrac{1}{2}, 0)\bigr)

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        alpha: How strongly errors that survive more erosions count.
        erosions: How often errors are eroded by B, the mean over a pixel's cross.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count; errors are 0 there, as beyond the border.

    Use when:
        The Hausdorff distance matters, and the loss is to run on a GPU throughout.

    Pitfalls:
        Errors thinner than the cross vanish at once and cost nothing: combine it with a region loss. Each
        eroded map is rescaled to 0 to 1, so the value jumps where an error begins to survive. The mean is over
        valid pixels; an image without any costs 0 and still counts in the mean over images.

    Sources:
        - Karimi and Salcudean (2020), Reducing the Hausdorff Distance, https://arxiv.org/abs/1904.10030
    """
    # in float64, which distinguishes values that are equal in float32: the greatest errors, to which others are scaled
    masks = soft_masks(
        logits.double(), targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    errors = (masks.false - masks.missed).square()
    eroded = torch.zeros_like(total(errors))
    for k in rounds(1, erosions + 1):
        cut = _cross_sum(errors) - 5 / 2
        errors = lasting(_rescaled(F.relu(kept(cut, masks.valid)), masks.valid))
        eroded = eroded + average(errors, masks.valid) * k**alpha
    return without_class_axis(eroded, mode).to(logits.dtype)


def _cross_sum(maps: Tensor) -> Tensor:
    """Add up each pixel and its four neighbours, zeros beyond the border."""
    # sums of shifts: three to four times faster than a convolution of one channel, and nothing is kept
    padded = F.pad(maps, (1, 1, 1, 1))
    vertical = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    horizontal = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return maps + vertical + horizontal


def _rescaled(sums: Tensor, valid: Tensor | None) -> Tensor:
    """Stretch sums over crosses from 0 to 1, or make them the means if they are flat; 0 where pixels do not count."""
    # sums are 0 where pixels do not count, and nowhere as much as 5
    low, high = kept(sums, valid, 5).amin((-2, -1), keepdim=True), sums.amax((-2, -1), keepdim=True)
    flat = low == high
    return kept((sums - torch.where(flat, 0, low)) / torch.where(flat, 5, high - low), valid)
