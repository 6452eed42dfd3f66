"""IoU losses with terms for how far apart centres lie and how much shapes differ."""

from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.spec import Diagnostic, Unreduced
from service.losses.detection.boxes import (
    UNITLESS,
    Area,
    BoxFormat,
    BoxLoss,
    Pair,
    PredictedBoxes,
    TargetBoxes,
    angle_mismatch,
    aspect_penalty,
    centre_distance,
    centre_offset,
    enclosing_sides,
    overlap,
    quotient,
    read_pair,
    squared_length,
)


@loss(
    title="Distance IoU (DIoU)",
    tasks=("detection",),
    aliases=("distance_iou", "distance_box_iou"),
    work="2 boxes",
    range=(0, 2),
    scales=UNITLESS,
)
def diou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""IoU loss plus the distance of the centres: pulls boxes that do not overlap straight together.

    Formula:
        1 - \mathrm{IoU} + \frac{\rho^2}{c^2},
        \quad \rho \text{ the distance of the centres},\ c \text{ the diagonal of the enclosing box}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the areas that divide, in the squared unit of the boxes. Boxes without area need
            none.

    Use when:
        Boxes may lie apart, and centres should be found in fewer steps than with `giou`.

    Pitfalls:
        Boxes with one centre but different shapes differ by their IoU only: see `ciou` and `eiou`. The
        enclosing diagonal is differentiated too, so the gradient also tends to widen the box.

    Sources:
        - Zheng et al. (2020), Distance-IoU Loss, https://arxiv.org/abs/1911.08287
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    return BoxLoss(missed + centre_distance(pair, eps), share)


@loss(
    title="Complete IoU (CIoU)",
    tasks=("detection",),
    aliases=("complete_iou", "complete_box_iou"),
    work="2 boxes",
    exact_gradient=False,
    range=(0, 3),
    scales=UNITLESS,
)
def ciou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""Distance IoU plus a penalty for a wrong aspect ratio: the box loss of many one-stage detectors.

    Formula:
        1 - \mathrm{IoU} + \frac{\rho^2}{c^2} + a v, \quad
        v = \frac{4}{\pi^2} \left(\arctan\frac{w^*}{h^* + \epsilon} - \arctan\frac{w}{h + \epsilon}\right)^2,
        \quad a = \frac{v}{1 - \mathrm{IoU} + v + \epsilon} \text{ (constant to the gradient)}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to divisors: an area to areas, a length to the heights of aspect ratios, in the unit of the
            boxes, and a number to the divisor of a. Boxes without area need none.

    Use when:
        A detector regresses boxes of many aspect ratios, as the YOLO family does.

    Pitfalls:
        The aspect term is zero whenever the ratios agree, whatever the sizes. The gradient treats a as a
        constant, so it is not the derivative of the value. A point counts as a box without width.

    Sources:
        - Zheng et al. (2020), Distance-IoU Loss, https://arxiv.org/abs/1911.08287
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    penalty = aspect_penalty(missed, angle_mismatch(pair, eps), eps)
    return BoxLoss(missed + centre_distance(pair, eps) + penalty, share)


@loss(
    title="XIoU",
    tasks=("detection",),
    aliases=("x_iou",),
    work="2 boxes",
    exact_gradient=False,
    range=(0, 2.25),
    scales=UNITLESS,
)
def xiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""Complete IoU with a sigmoid in place of the arctangent, as some YOLO forks have it.

    Formula:
        1 - \mathrm{IoU} + \frac{\rho^2}{c^2} + a v, \quad
        v = \left(\sigma\left(\frac{w^*}{h^* + \epsilon}\right)
        - \sigma\left(\frac{w}{h + \epsilon}\right)\right)^2,
        \quad a = \frac{v}{1 - \mathrm{IoU} + v + \epsilon} \text{ (constant to the gradient)}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to divisors: an area to areas, a length to the heights of aspect ratios, in the unit of the
            boxes, and a number to the divisor of a. Boxes without area need none.

    Use when:
        Results of a YOLO fork that trains with it are to be reproduced.

    Pitfalls:
        No paper defines it: this is the definition that public collections for YOLOv5, YOLOv7 and YOLOv8
        share. The sigmoid of a ratio lies between 1/2 and 1 and is flat for wide boxes, so the aspect term is
        faint.

    Sources:
        - Zheng et al. (2020), Distance-IoU Loss (the complete IoU it varies), https://arxiv.org/abs/1911.08287
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    mismatch = (_squashed_ratio(pair.target_sides, eps) - _squashed_ratio(pair.sides, eps)).square()
    return BoxLoss(missed + centre_distance(pair, eps) + aspect_penalty(missed, mismatch, eps), share)


def _squashed_ratio(sides: Tensor, eps: float) -> Tensor:
    """Return the sigmoid of width over height: 1 without height, and 1/2 without width, too."""
    width, height = sides.unbind()
    height = height + eps if eps else height
    flat = height == 0
    ratio = torch.where(flat, 0, width) / torch.where(flat, 1, height)
    return torch.where(flat & (width > 0), 1, ratio.sigmoid())


@loss(
    title="Efficient IoU (EIoU)",
    tasks=("detection",),
    aliases=("efficient_iou",),
    work="2 boxes",
    range=(0, 4),
    scales=UNITLESS,
)
def eiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""Distance IoU plus penalties for a wrong width and a wrong height, each on its own.

    Formula:
        1 - \mathrm{IoU} + \frac{\rho^2}{c^2} + \frac{(w - w^*)^2}{c_w^2 + \epsilon}
        + \frac{(h - h^*)^2}{c_h^2 + \epsilon}, \quad c_w, c_h \text{ the sides of the enclosing box}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the areas that divide, in the squared unit of the boxes. Boxes without area need
            none.

    Use when:
        The aspect term of `ciou` holds training back: its gradient never widens and heightens a box at once.

    Pitfalls:
        This is Efficient IoU; some libraries call another loss, Extended IoU, by the same short name.

    Sources:
        - Zhang et al. (2021), Focal and Efficient IOU Loss, https://arxiv.org/abs/2101.08158
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    return BoxLoss(_efficient(pair, missed, eps), share)


@loss(
    title="Focal efficient IoU",
    tasks=("detection",),
    aliases=("focal_efficient_iou",),
    work="2 boxes",
    exact_gradient=False,
    range=(0, 4),
    scales=UNITLESS,
)
def focal_eiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    gamma: Annotated[float, Ge(0)] = 0.5,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""Efficient IoU weighted by a power of the IoU: many poor anchors do not drown the good ones.

    Formula:
        \mathrm{IoU}^\gamma \, L_{\mathrm{EIoU}}, \quad \mathrm{IoU}^\gamma \text{ constant to the gradient}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        gamma: How much boxes that overlap little are played down; 0 is `eiou`.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the areas that divide, in the squared unit of the boxes. Boxes without area need
            none.

    Use when:
        Most candidate boxes fit badly, and the few that fit should lead.

    Pitfalls:
        Boxes that do not overlap cost nothing and have no gradient. The weight is a constant to the gradient,
        or a lower overlap would be rewarded; so the gradient is not the derivative of the value.

    Sources:
        - Zhang et al. (2021), Focal and Efficient IOU Loss, https://arxiv.org/abs/2101.08158
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    return BoxLoss(share.detach().pow(gamma) * _efficient(pair, missed, eps), share)


@loss(
    title="SCYLLA IoU (SIoU)",
    tasks=("detection",),
    aliases=("scylla_iou",),
    work="2 boxes",
    range=(0, 3),
    scales=UNITLESS,
)
def siou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    theta: Annotated[float, Ge(1)] = 4.0,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""IoU loss with distance and shape terms; the distance term minds the direction to the target.

    Formula:
        1 - \mathrm{IoU} + \frac{D + S}{2}, \quad
        D = \sum_{x, y} 1 - e^{-(2 - A) (d / (c + \epsilon))^2}, \quad
        A = \frac{2 |d_x d_y|}{d_x^2 + d_y^2}, \quad
        S = \sum_{w, h} \left(1 - e^{-|w - w^*| / (\max(w, w^*) + \epsilon)}\right)^\theta

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        theta: How sharply the shape term sets in; the paper takes 2 to 6.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the union, a length to the sides that divide, in the unit of the boxes. Boxes
            without area need none.

    Use when:
        Predictions wander around their targets, and should first reach one axis and then follow it.

    Pitfalls:
        A, the sine of twice the angle to the target, is written without arcsine: its slope is infinite where
        the centres share an axis. Implementations that flip the sign of 2 - A reward distance.

    Sources:
        - Gevorgyan (2022), SIoU Loss: More Powerful Learning for Bounding Box Regression,
          https://arxiv.org/abs/2205.12740
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    offset = centre_offset(pair)
    dx, dy = offset.unbind()
    angle = quotient(2 * (dx * dy).abs(), squared_length(offset))
    distance = -torch.expm1((angle - 2) * quotient(offset, enclosing_sides(pair), eps).square())
    larger = torch.maximum(pair.sides, pair.target_sides)
    shape = (-torch.expm1(-quotient(pair.growth.abs(), larger, eps))).pow(theta)
    return BoxLoss(missed + (distance + shape).sum(0) / 2, share)


class WiseLoss(NamedTuple):
    """A loss for each pair of boxes, how much they overlap, and the running mean for the next call."""

    loss: Annotated[Tensor, Unreduced("...")]
    iou: Annotated[Tensor, Diagnostic("...")]
    running_mean: Annotated[Tensor, Diagnostic("")]


@loss(
    title="Wise IoU (WIoU)",
    tasks=("detection",),
    aliases=("wise_iou", "wiou_v3"),
    work="2 boxes",
    exact_gradient=False,
    range=(0, None),
    scales=UNITLESS,
)
def wiou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    version: Literal[1, 2, 3] = 3,
    running_mean: Annotated[float, Gt(0)] = 1.0,
    gamma: Annotated[float, Ge(0)] = 0.5,
    alpha: Annotated[float, Gt(1)] = 1.9,
    delta: Annotated[float, Gt(0)] = 3.0,
    momentum: Annotated[float, Gt(0), Le(1)] = 0.01,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> WiseLoss:
    r"""IoU loss that focuses on boxes of ordinary quality: robust to noisy labels.

    Formula:
        L_1 = e^{\rho^2 / c^2} (1 - \mathrm{IoU}), \quad L_2 = \beta^\gamma L_1, \quad
        L_3 = \frac{\beta}{\delta \alpha^{\beta - \delta}} L_1, \quad
        \beta = \frac{1 - \mathrm{IoU}}{\overline{1 - \mathrm{IoU}}},
        \quad c \text{ and } \beta \text{ constant to the gradient}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        version: 1 for the distance factor alone, 2 for a monotonic focus, 3 for a focus that also plays
            outliers down.
        running_mean: Mean of 1 - IoU over training so far; start at 1 and send back what `aux` returned.
        gamma: Exponent of the focus of version 2.
        alpha: Base of the focus of version 3: the larger, the more outliers are played down.
        delta: The beta at which the focus of version 3 is 1.
        momentum: Share of this call in the running mean that `aux` returns.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the areas that divide, in the squared unit of the boxes. Boxes without area need
            none.

    Use when:
        Labels are noisy, and neither perfect boxes nor hopeless ones should lead.

    Pitfalls:
        Versions 2 and 3 need the running mean of 1 - IoU. No state is kept between calls: send `running_mean`
        and take the next from `aux.running_mean`. Left at 1, every box looks better than average.

    Sources:
        - Tong et al. (2023), Wise-IoU, https://arxiv.org/abs/2301.10051
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    diagonal = squared_length(enclosing_sides(pair)).detach()
    attention = torch.exp(quotient(squared_length(centre_offset(pair)), diagonal, eps))
    cost = missed.detach()
    observed = cost.mean() if cost.numel() else constant(running_mean, cost)
    mean = (1 - momentum) * running_mean + momentum * observed
    outlier = cost / running_mean
    match version:
        case 1:
            focus = torch.ones_like(outlier)
        case 2:
            focus = outlier.pow(gamma)
        case 3:
            focus = outlier / delta * alpha ** (delta - outlier)
    return WiseLoss(focus * attention * missed, share, mean)


def _efficient(pair: Pair, missed: Tensor, eps: float) -> Tensor:
    """Return the efficient IoU loss."""
    squared = enclosing_sides(pair).square()
    sides = quotient(pair.growth.square(), squared, eps)
    return missed + quotient(squared_length(centre_offset(pair)), squared.sum(0), eps) + sides.sum(0)
