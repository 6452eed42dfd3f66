"""Losses made of intersection over union, and of what lies around the union."""

from typing import Annotated, Literal

from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.losses.detection.boxes import (
    Box,
    BoxFormat,
    BoxLoss,
    Epsilon,
    PredictedBoxes,
    TargetBoxes,
    angle_mismatch,
    area,
    aspect_penalty,
    centre_distance,
    enclosing_sides,
    overlap,
    read_pair,
)


@loss(
    title="Intersection over union (IoU)",
    tasks=("detection",),
    aliases=("iou_box", "box_iou", "jaccard_box"),
)
def iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    mode: Literal["linear", "square", "log"] = "linear",
    box_format: BoxFormat = "xyxy",
    eps: Epsilon = 1e-7,
) -> BoxLoss:
    r"""One minus the share of two boxes' joint area that both cover: scale-free box regression.

    Formula:
        1 - \mathrm{IoU}, \quad 1 - \mathrm{IoU}^2 \quad \text{or} \quad -\ln \max(\mathrm{IoU}, \epsilon),
        \quad \mathrm{IoU} = \frac{|B \cap B^*|}{|B \cup B^*| + \epsilon}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        mode: What is made of the IoU: `linear`, `square` or `log`.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to the union, so that boxes without area are finite; the least IoU that `log` sees.

    Use when:
        Predicted boxes already overlap their targets, and large and small boxes should count alike.

    Pitfalls:
        Boxes that do not overlap have a gradient of exactly zero and never move: take `giou` or `diou` there.
        `eps` is an area: it biases boxes with sides below about 1e-3, as small boxes in [0, 1] have.

    Sources:
        - Yu et al. (2016), UnitBox: An Advanced Object Detection Network, https://arxiv.org/abs/1608.01471
    """
    share = overlap(*read_pair(boxes, targets, box_format), eps).iou
    match mode:
        case "linear":
            return BoxLoss(1 - share, share)
        case "square":
            return BoxLoss(1 - share.square(), share)
        case "log":
            return BoxLoss(-share.clamp(min=eps).log(), share)


@loss(
    title="Generalized IoU (GIoU)",
    tasks=("detection",),
    aliases=("generalized_iou", "generalized_box_iou"),
)
def giou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    box_format: BoxFormat = "xyxy",
    eps: Epsilon = 1e-7,
) -> BoxLoss:
    r"""IoU loss plus the empty share of the enclosing box: boxes that do not overlap learn too.

    Formula:
        1 - \mathrm{IoU} + \frac{|C| - |B \cup B^*|}{|C| + \epsilon},
        \quad C \text{ the smallest box around both}

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to the areas that divide, so that boxes without area give a finite loss.

    Use when:
        Early in training, or whenever predicted boxes may lie apart from their targets.

    Pitfalls:
        The loss runs from 0 to 2. The gradient may first enlarge a distant box until it overlaps, so it
        converges slowly; `diou` moves the centre straight away. Inside its target it equals `iou`.

    Sources:
        - Rezatofighi et al. (2019), Generalized Intersection over Union, https://arxiv.org/abs/1902.09630
    """
    box, target = read_pair(boxes, targets, box_format)
    share, union = overlap(box, target, eps)
    return BoxLoss(1 - share + _empty_share(box, target, union, eps), share)


@loss(
    title="Inner IoU",
    tasks=("detection",),
)
def inner_iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    ratio: Annotated[float, Gt(0)] = 0.75,
    box_format: BoxFormat = "xyxy",
    eps: Epsilon = 1e-7,
) -> BoxLoss:
    r"""IoU loss of both boxes scaled about their own centres: sharper, or more forgiving, than IoU.

    Formula:
        1 - \mathrm{IoU}(\rho B, \rho B^*), \quad \rho B \text{ the box } B \text{ with sides } \rho w, \rho h

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        ratio: Scale of the compared boxes: below 1 shrinks them, above 1 grows them, 1 is `iou`.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to the union, so that boxes without area give a finite loss.

    Use when:
        Boxes overlap well and should fit better (`ratio` below 1), or overlap poorly (`ratio` above 1).

    Pitfalls:
        Shrunk boxes lie apart sooner than the boxes themselves, and then have no gradient. The diagnostic
        `iou` is that of the boxes as sent, not of the scaled ones.

    Sources:
        - Zhang et al. (2023), Inner-IoU, https://arxiv.org/abs/2311.02877
    """
    box, target = read_pair(boxes, targets, box_format)
    inner = overlap(_scaled(box, ratio), _scaled(target, ratio), eps).iou
    return BoxLoss(1 - inner, overlap(box, target, eps).iou)


@loss(
    title="Alpha IoU",
    tasks=("detection",),
    aliases=("power_iou",),
    exact_gradient=False,
)
def alpha_iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    alpha: Annotated[float, Gt(0)] = 3.0,
    variant: Literal["iou", "giou", "diou", "ciou"] = "iou",
    box_format: BoxFormat = "xyxy",
    eps: Epsilon = 1e-7,
) -> BoxLoss:
    r"""IoU loss, or one of its relatives, with every term raised to a power: presses for high overlap.

    Formula:
        1 - P(\mathrm{IoU}) + \begin{cases} 0 & \text{iou} \\
        P\left(\frac{|C| - |B \cup B^*|}{|C| + \epsilon}\right) & \text{giou} \\
        P(\rho^2 / c^2) & \text{diou} \\
        P(\rho^2 / c^2) + P(a v) & \text{ciou} \end{cases},
        \quad P(x) = \max(x, \epsilon)^\alpha

    Args:
        boxes: Predicted boxes, in `box_format`.
        targets: The true box of each predicted one.
        alpha: The power: above 1 weighs boxes that overlap well the more, 1 is the loss of `variant`.
        variant: The loss whose terms are raised to the power.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.
        eps: Added to what divides, and the least value that is raised to the power.

    Use when:
        Boxes are found, and the accuracy at high IoU thresholds should rise.

    Pitfalls:
        With `alpha` above 1 boxes that overlap little hardly learn. No term falls below `eps` to the power:
        with a small `alpha` a perfect fit still costs something. In `ciou` the weight a is constant to the
        gradient, as it is in the loss of that name.

    Sources:
        - He et al. (2021), Alpha-IoU, https://arxiv.org/abs/2110.13675
    """
    box, target = read_pair(boxes, targets, box_format)
    share, union = overlap(box, target, eps)
    terms: list[Tensor] = []
    if variant == "giou":
        terms.append(_empty_share(box, target, union, eps))
    if variant in ("diou", "ciou"):
        terms.append(centre_distance(box, target, eps))
    if variant == "ciou":
        terms.append(aspect_penalty(share, angle_mismatch(box, target, eps), eps))

    def power(term: Tensor) -> Tensor:
        # below eps the slope of a power under 1 would grow without bound
        return term.clamp(min=eps).pow(alpha)

    return BoxLoss(sum(map(power, terms), 1 - power(share)), share)


def _empty_share(box: Box, target: Box, union: Tensor, eps: float) -> Tensor:
    """Return which share of the enclosing box neither box covers."""
    enclosing = area(enclosing_sides(box, target))
    return (enclosing - union) / (enclosing + eps)


def _scaled(box: Box, ratio: float) -> Box:
    """Return boxes scaled about their own centres."""
    margin = box.sides * ((1 - ratio) / 2)
    return Box(box.near + margin, box.far - margin, box.sides * ratio)
