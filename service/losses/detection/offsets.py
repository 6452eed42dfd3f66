"""Losses of how far centres, corners, sides or plain coordinates are off."""

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Diagnostic, Example, Prediction, Scales, Target, Unreduced
from service.losses.detection.boxes import (
    UNITLESS,
    Area,
    BoxFormat,
    BoxLoss,
    PredictedBoxes,
    TargetBoxes,
    centre_offset,
    overlap,
    quotient,
    read_pair,
    squared_length,
)
from service.losses.digits import sloped


@loss(
    title="Normalized Gaussian Wasserstein distance (NWD)",
    tasks=("detection",),
    aliases=("normalized_wasserstein", "normalized_gaussian_wasserstein"),
    keywords=(
        "small objects",
        "tiny object detection",
    ),
    work="boxes",
    range=(0, 1),
    scales=Scales(0, along=("constant",)),
)
def nwd(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    constant: Annotated[float, Gt(0)] = 12.8,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""Distance of boxes seen as Gaussians: smooth for tiny objects, whose overlap jumps by the pixel.

    Formula:
        1 - \exp\left(-\frac{1}{C} \left\lVert \left(d_x, d_y, \frac{w - w^*}{2}, \frac{h - h^*}{2}\right)
        \right\rVert_2\right)

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        constant: C, the distance at which the loss is 0.63, in the unit of the boxes: about the mean size of
            the objects.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the union in the diagnostic `iou`; the loss itself has none.

    Use when:
        Objects are tiny, below about 16 pixels.

    Pitfalls:
        Not scale-free: the default of 12.8 is a size in pixels, that of the mean object of AI-TOD. Boxes in
        [0, 1] need a `constant` in that unit.

    Sources:
        - Wang et al. (2021), A Normalized Gaussian Wasserstein Distance for Tiny Object Detection,
          https://arxiv.org/abs/2110.13389
    """
    pair = read_pair(boxes, targets, box_format)
    # a centre and half a side off are half the sum and half the difference of two edges off; the gradient of
    # this norm is 0 at a perfect fit, where that of a plain square root is NaN
    ends = torch.cat([pair.edges.near, pair.edges.far]).movedim(0, -1)
    distance = F.pairwise_distance(ends, torch.zeros_like(ends), eps=0) / math.sqrt(2)
    return BoxLoss(-torch.expm1(-distance / constant), overlap(pair, eps).iou)


@loss(
    title="Minimum point distance IoU (MPDIoU)",
    tasks=("detection",),
    work="2 boxes",
    range=(0, None),
    scales=Scales(0, along=("image_width", "image_height"), params={"eps": 0.0}),
    example=Example(params={"image_width": 20.0, "image_height": 16.0}),
)
def mpdiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    image_width: Annotated[float, Gt(0)],
    image_height: Annotated[float, Gt(0)],
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""IoU loss plus the squared distances of both corners, over the image's diagonal.

    Formula:
        1 - \mathrm{IoU} + \frac{d_1^2 + d_2^2}{W^2 + H^2},
        \quad d_1, d_2 \text{ the distances of the top-left and of the bottom-right corners}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        image_width: W, in the unit of the boxes.
        image_height: H, in the unit of the boxes.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the union, in the squared unit of the boxes. Boxes without area need none.

    Use when:
        Images have one fixed size, and boxes may agree in centre and aspect ratio but not in size.

    Pitfalls:
        `image_width` and `image_height` are in the unit of the boxes: 1 and 1 for boxes in [0, 1].

    Sources:
        - Siliang and Yong (2023), MPDIoU, https://arxiv.org/abs/2307.07662
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    corners = squared_length(pair.edges.near) + squared_length(pair.edges.far)
    return BoxLoss(missed + corners / (image_width**2 + image_height**2), share)


class CoordinateLoss(NamedTuple):
    """A loss for each of the four numbers of each pair of boxes, and how much the boxes overlap."""

    loss: Annotated[Tensor, Unreduced("... 4")]
    iou: Annotated[Tensor, Diagnostic("...")]


@loss(
    title="Bounded IoU",
    tasks=("detection",),
    aliases=("biou",),
    work="2 boxes",
    coupled=True,
    range=(0, 1),
    scales=UNITLESS,
)
def bounded_iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    beta: Annotated[float, Gt(0)] = 0.2,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> CoordinateLoss:
    r"""Smooth L1 of what each of x, y, width and height alone costs in IoU at best.

    Formula:
        \mathrm{SmoothL1}_\beta(e), \quad
        e_x = 1 - \max\left(0, \frac{w^* - 2 |d_x|}{w^* + 2 |d_x| + \epsilon}\right), \quad
        e_w = 1 - \min\left(\frac{w^*}{w + \epsilon}, \frac{w}{w^* + \epsilon}\right),
        \quad e_y, e_h \text{ alike}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        beta: Where smooth L1 turns from a parabola into a line.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: A length added to divisors, in the unit of the boxes. Boxes without area need none.

    Use when:
        Each coordinate of a box should be weighted by its effect on the overlap, as in older detectors.

    Pitfalls:
        Gives four numbers for each pair, in the order x, y, w, h, for any `box_format`. Offsets are
        measured against the sides of the target: beyond half a side they have no gradient. Libraries often add
        an `eps` of 1e-3, which swamps boxes in [0, 1].

    Sources:
        - Tychsen-Smith and Petersson (2018), Improving Object Localization with Fitness NMS and Bounded IoU
          Loss, https://arxiv.org/abs/1711.00164
    """
    pair = read_pair(boxes, targets, box_format)
    off, target_sides = 2 * centre_offset(pair).abs(), pair.target_sides
    # one minus each ratio, which would lose the digits of a good fit
    within = (off < target_sides) | (off == 0)
    centres = torch.where(within, quotient(2 * off + eps, target_sides + off, eps), 1)
    wider = quotient(pair.growth + eps, pair.sides, eps)
    narrower = quotient(eps - pair.growth, target_sides, eps)
    error = torch.cat([centres, torch.maximum(wider, narrower)])
    each = F.smooth_l1_loss(error, torch.zeros_like(error), beta=beta, reduction="none")
    return CoordinateLoss(each.movedim(0, -1), overlap(pair, eps).iou)


STEEPEST = 60.0
"""Beyond this exponent only errors below e^-60 of `beta` see the bend of balanced L1 at 0."""


@loss(
    title="Balanced L1",
    tasks=("detection",),
    work="4 predictions",
    range=(0, None),
    scales=Scales(1, along=("beta",)),
)
def balanced_l1(
    predictions: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...")],
    *,
    alpha: Annotated[float, Gt(0)] = 0.5,
    gamma: Annotated[float, Gt(0)] = 1.5,
    beta: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Smooth L1 with larger gradients for small errors: easy and hard boxes weigh more alike.

    Formula:
        \begin{cases} \beta \left(\frac{\alpha}{b} \left(\frac{b x}{\beta} + 1\right)
        \ln\left(\frac{b x}{\beta} + 1\right) - \frac{\alpha x}{\beta}\right) & x < \beta \\
        \gamma x + \frac{\gamma \beta}{b} - \alpha \beta & x \ge \beta \end{cases},
        \quad x = |\hat y - y|, \quad b = e^{\gamma / \alpha} - 1

    Args:
        predictions: Estimated coordinates, or offsets of coordinates.
        targets: Their true values.
        alpha: How strongly small errors are raised: the smaller, the more.
        gamma: The slope beyond `beta`, so the largest gradient.
        beta: The error at which the curve turns into a line, in the unit of the coordinates.

    Use when:
        A few boxes with large errors outweigh the many that nearly fit.

    Pitfalls:
        For a `beta` other than 1 the curve is rescaled as a whole; another common reading turns negative near
        zero there.

    Sources:
        - Pang et al. (2019), Libra R-CNN: Towards Balanced Learning for Object Detection,
          https://arxiv.org/abs/1904.02701
    """
    offset = (predictions - targets).detach()
    growth = math.expm1(min(gamma / alpha, STEEPEST))
    # the part of the exponent that is left only adds to the slope of log1p(growth * inner)
    left = max(0.0, gamma - alpha * STEEPEST)
    # no side is 0 where the slope is smooth: it is multiplied by its own side, whose square is its slope's
    side = offset.sign() if left else torch.where(offset < 0, -1.0, 1.0)
    error = offset * side
    inner = error.clamp(max=beta).div_(beta)
    curve = _risen(growth * inner).to(inner).mul_(alpha / growth).add_(inner, alpha=left)

    def slope(side: Tensor, inner: Tensor) -> Tensor:
        return (growth * inner).log1p_().mul_(alpha).add_(left).mul_(side)

    return sloped(
        # the line continues the curve: at beta both have slope gamma
        curve.mul_(beta).add_(error.sub_(beta).relu_(), alpha=gamma),
        (side, inner),
        (predictions, slope),
        (targets, lambda side, inner: -slope(side, inner)),
    )


def _risen(x: Tensor) -> Tensor:
    """Return the integral of log1p from 0 to x, (1 + x) log1p(x) - x, in float64."""
    wide = x.double()
    whole = wide.log1p().mul_(1 + wide).sub_(wide)
    # near 0 it is the square of what its two terms contain themselves
    series = (wide / 20).sub_(1 / 12).mul_(wide).add_(1 / 6).mul_(wide).sub_(1 / 2).mul_(wide).mul_(wide)
    return torch.where(wide < 1e-3, series.neg_(), whole)
