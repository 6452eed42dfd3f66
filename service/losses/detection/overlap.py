"""Losses of intersection over union, and of the space around the union."""

from math import log
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.losses.detection.boxes import (
    UNITLESS,
    Area,
    BoxFormat,
    BoxLoss,
    PredictedBoxes,
    TargetBoxes,
    angle_mismatch,
    aspect_penalty,
    centre_distance,
    drawn_apart,
    empty_share,
    overlap,
    read_pair,
)


@loss(
    title="Intersection over union (IoU)",
    tasks=("detection",),
    aliases=("iou_box", "box_iou", "jaccard_box"),
    keywords=(
        "object detection",
        "bounding box regression",
        "IoU",
    ),
    work="boxes",
    range=lambda params: (0, -log(params["floor"]) if params["mode"] == "log" else 1),
    scales=UNITLESS,
)
def iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    mode: Literal["linear", "square", "log"] = "linear",
    floor: Annotated[float, Gt(0), Lt(1)] = 1e-7,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""One minus the share of two boxes' joint area that both cover: scale-free box regression.

    Formula:
        1 - \mathrm{IoU}, \quad 1 - \mathrm{IoU}^2 \quad \text{or} \quad -\ln \max(\mathrm{IoU}, f),
        \quad \mathrm{IoU} = \frac{|B \cap B^*|}{|B \cup B^*| + \epsilon}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        mode: The function of the IoU: `linear`, `square` or `log`.
        floor: f, the least IoU that `log` sees; below it there is no gradient.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the union, in the squared unit of the boxes. Boxes without area need none.

    Use when:
        Predicted boxes already overlap their targets, and large and small boxes should count alike.

    Pitfalls:
        Boxes that do not overlap have a gradient of exactly zero and never move: take `giou` or `diou` there.
        Two boxes without area have an IoU of 1 where they are the same, else of 0, and no gradient. Libraries
        often add an `eps` of 1e-7: an area, which biases boxes with sides below about 1e-3.

    Sources:
        - Yu et al. (2016), UnitBox: An Advanced Object Detection Network, https://arxiv.org/abs/1608.01471
    """
    share, missed = overlap(read_pair(boxes, targets, box_format), eps)
    match mode:
        case "linear":
            return BoxLoss(missed, share)
        case "square":
            return BoxLoss(missed * (1 + share), share)
        case "log":
            return BoxLoss(surprise_of_overlap(share, missed, floor), share)


def surprise_of_overlap(share: Tensor, missed: Tensor, floor: float) -> Tensor:
    """Return minus the logarithm of an IoU of at least ``floor``."""
    # by the odds, as a share near 1 has lost the digits of what is missed
    return torch.log1p((missed / share.clamp(min=floor)).clamp(max=1 / floor - 1))


@loss(
    title="Generalized IoU (GIoU)",
    tasks=("detection",),
    aliases=("generalized_iou", "generalized_box_iou"),
    keywords=(
        "object detection",
        "bounding box regression",
        "generalized IoU",
        "DETR",
        "IoU",
    ),
    work="2 boxes",
    range=(0, 2),
    scales=UNITLESS,
)
def giou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""IoU loss plus the empty share of the enclosing box: boxes that do not overlap learn too.

    Formula:
        1 - \mathrm{IoU} + \frac{|C| - |B \cup B^*|}{|C| + \epsilon},
        \quad C \text{ the smallest box around both}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the areas that divide, in the squared unit of the boxes. Boxes without area need
            none.

    Use when:
        Early in training, or whenever predicted boxes may lie apart from their targets.

    Pitfalls:
        The loss runs from 0 to 2. The gradient may first enlarge a distant box until it overlaps, so it
        converges slowly; `diou` moves the centre straight away. Inside its target it equals `iou`. The
        gradient of a side is of the order of one over its length: of two boxes that are both nearly flat it is
        huge, and of two that are flat it is that of the enclosing box alone.

    Sources:
        - Rezatofighi et al. (2019), Generalized Intersection over Union, https://arxiv.org/abs/1902.09630
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    return BoxLoss(missed + empty_share(pair, eps), share)


@loss(
    title="Inner IoU",
    tasks=("detection",),
    work="boxes",
    range=(0, 1),
    scales=UNITLESS,
)
def inner_iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    ratio: Annotated[float, Gt(0)] = 0.75,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""IoU loss of both boxes scaled about their own centres: sharper, or more forgiving, than IoU.

    Formula:
        1 - \mathrm{IoU}(\rho B, \rho B^*), \quad \rho B \text{ the box } B \text{ with sides } \rho w, \rho h

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        ratio: Scale of the compared boxes: below 1 shrinks them, above 1 grows them, 1 is `iou`.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: An area added to the union, in the squared unit of the boxes. Boxes without area need none.

    Use when:
        Boxes overlap well and should fit better (`ratio` below 1), or overlap poorly (`ratio` above 1).

    Pitfalls:
        Shrunk boxes lie apart sooner than the boxes themselves, and then have no gradient. The diagnostic
        `iou` is that of the boxes as sent, not of the scaled ones.

    Sources:
        - Zhang et al. (2023), Inner-IoU, https://arxiv.org/abs/2311.02877
    """
    pair = read_pair(boxes, targets, box_format)
    # the overlap is the same whether boxes shrink about their centres or those centres part
    inner = overlap(drawn_apart(pair, 1 / ratio), eps / ratio**2)
    return BoxLoss(inner.loss, overlap(pair, eps).iou)


@loss(
    title="Alpha IoU",
    tasks=("detection",),
    aliases=("power_iou",),
    work="2 boxes",
    exact_gradient=False,
    range=lambda params: (0, {"iou": 1, "giou": 2, "diou": 2, "ciou": 3}[params["variant"]]),
    scales=UNITLESS,
)
def alpha_iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    alpha: Annotated[float, Gt(0)] = 3.0,
    variant: Literal["iou", "giou", "diou", "ciou"] = "iou",
    floor: Annotated[float, Gt(0), Lt(1)] = 1e-7,
    box_format: BoxFormat = "xyxy",
    eps: Area = 0.0,
) -> BoxLoss:
    r"""IoU loss, or one of its relatives, with every term raised to a power: presses for high overlap.

    Formula:
        1 - \max(\mathrm{IoU}, f)^\alpha + \begin{cases} 0 & \text{iou} \\
        P\left(\frac{|C| - |B \cup B^*|}{|C| + \epsilon}\right) & \text{giou} \\
        P(\rho^2 / c^2) & \text{diou} \\
        P(\rho^2 / c^2) + P(a v) & \text{ciou} \end{cases},
        \quad P(x) = \begin{cases} x^\alpha & x \ge f \\ x f^{\alpha - 1} & x < f \end{cases}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        alpha: The power: above 1 weighs boxes that overlap well the more, 1 is the loss of `variant`.
        variant: The loss whose terms are raised to the power.
        floor: f, the least IoU that is raised to the power; below it the power of another term is a line.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to divisors: an area to areas, a length to the heights of aspect ratios, in the unit of the
            boxes, and a number to the divisor of a. Boxes without area need none.

    Use when:
        Boxes are found, and the accuracy at high IoU thresholds should rise.

    Pitfalls:
        With `alpha` above 1 boxes that overlap little hardly learn; below 1 the slope of a power grows without
        bound towards 0, which `floor` prevents. In `ciou` the weight a is constant to the gradient, as it is
        in the loss of that name.

    Sources:
        - He et al. (2021), Alpha-IoU, https://arxiv.org/abs/2110.13675
    """
    pair = read_pair(boxes, targets, box_format)
    share, missed = overlap(pair, eps)
    terms: list[Tensor] = []
    if variant == "giou":
        terms.append(empty_share(pair, eps))
    if variant in ("diou", "ciou"):
        terms.append(centre_distance(pair, eps))
    if variant == "ciou":
        terms.append(aspect_penalty(missed, angle_mismatch(pair, eps), eps))
    region = -torch.expm1(-alpha * surprise_of_overlap(share, missed, floor))
    return BoxLoss(sum((_power(term, alpha, floor) for term in terms), region), share)


def _power(term: Tensor, alpha: float, floor: float) -> Tensor:
    """Return a power that starts as a line, so that its slope at 0 is finite."""
    line = term.clamp(max=floor) * floor ** (alpha - 1)
    return torch.where(term < floor, line, term.clamp(min=floor).pow(alpha))
