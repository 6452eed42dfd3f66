"""Losses of rotated boxes by the exact areas of polygons, where those of `rotated` compare Gaussians."""

from math import log
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Scales
from service.losses.detection.boxes import BoxLoss, Overlap, quotient
from service.losses.detection.overlap import surprise_of_overlap
from service.losses.detection.polygons import hull_area, shared_area
from service.losses.detection.rotated import PredictedBoxes, TargetBoxes
from service.losses.digits import bounded


@loss(
    title="Rotated intersection over union",
    tasks=("oriented_detection",),
    aliases=("rotated_box_iou", "polygon_iou"),
    keywords=(
        "oriented object detection",
        "rotated boxes",
        "IoU",
        "aerial images",
        "satellite images",
    ),
    work="20 boxes",
    range=lambda params: (0, -log(params["floor"]) if params["mode"] == "log" else 1),
    scales=Scales(0, entries=4),
)
def rotated_iou(
    boxes: PredictedBoxes,
    targets: TargetBoxes,
    *,
    mode: Literal["linear", "square", "log"] = "linear",
    floor: Annotated[float, Gt(0), Lt(1)] = 1e-7,
) -> BoxLoss:
    r"""One minus the exact IoU of rotated boxes: the area of the polygon that they share over that of both.

    Formula:
        1 - \mathrm{IoU}, \quad 1 - \mathrm{IoU}^2 \quad \text{or} \quad -\ln \max(\mathrm{IoU}, f),
        \quad \mathrm{IoU} = \frac{|B \cap B^*|}{|B| + |B^*| - |B \cap B^*|}

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.
        mode: The function of the IoU: `linear`, `square` or `log`.
        floor: f, the least IoU that `log` sees; below it there is no gradient.

    Use when:
        Rotated boxes already overlap their targets, and the metric that they are judged by is the IoU itself.

    Pitfalls:
        Boxes that do not overlap have a gradient of exactly zero and never move: take `rotated_giou`,
        `rotated_kld` or `rotated_gwd` there. Of thin boxes a small turn costs almost all overlap. Where sides
        coincide, the gradient is the mean of those of a slightly larger and a slightly smaller box: zero for a
        perfect fit. Boxes that only touch have none.

    Sources:
        - Zhou et al. (2019), IoU Loss for 2D/3D Object Detection, https://arxiv.org/abs/1908.03851
    """
    (share, missed), _ = _overlap(boxes.double(), targets.double())
    match mode:
        case "linear":
            value = missed
        case "square":
            value = missed * (1 + share)
        case "log":
            value = surprise_of_overlap(share, missed, floor)
    return BoxLoss(value.to(boxes.dtype), share.to(boxes.dtype))


@loss(
    title="Rotated generalized IoU",
    tasks=("oriented_detection",),
    aliases=("rotated_generalized_iou", "convex_giou", "polygon_giou"),
    keywords=(
        "oriented object detection",
        "rotated boxes",
        "generalized IoU",
        "aerial images",
        "satellite images",
    ),
    work="48 boxes",
    range=(0, 2),
    scales=Scales(0, entries=4),
)
def rotated_giou(boxes: PredictedBoxes, targets: TargetBoxes) -> BoxLoss:
    r"""Exact IoU loss of rotated boxes plus the empty share of their convex hull: boxes that lie apart learn too.

    Formula:
        1 - \mathrm{IoU} + \frac{|C| - |B \cup B^*|}{|C|}, \quad C \text{ the convex hull of both boxes}

    Args:
        boxes: Predicted boxes: centre x, y, width, height, angle in radians.
        targets: The true box of each predicted one.

    Use when:
        Rotated boxes may lie apart from their targets, and the exact IoU should be optimised once they overlap.

    Pitfalls:
        The enclosing shape is the convex hull, as the definition has it, not a box: without any turn the loss is
        at most that of `giou`. The gradient may first enlarge a distant box until it overlaps. A box inside its
        target has the gradient of `rotated_iou`. Where sides coincide, or corners lie on the hull's sides, the
        gradient is the mean of those of a slightly larger and a slightly smaller box: zero for a perfect fit.

    Sources:
        - Rezatofighi et al. (2019), Generalized Intersection over Union, https://arxiv.org/abs/1902.09630
        - Zhou et al. (2019), IoU Loss for 2D/3D Object Detection, https://arxiv.org/abs/1908.03851
    """
    box, target = boxes.double(), targets.double()
    (share, missed), union = _overlap(box, target)
    hull = hull_area(box, target)
    empty = bounded(hull - union, 0.0)
    return BoxLoss((missed + quotient(empty, hull)).to(boxes.dtype), share.to(boxes.dtype))


def _overlap(box: Tensor, target: Tensor) -> tuple[Overlap, Tensor]:
    """Return the IoU of pairs of boxes with one minus it, and the area of their union."""
    both = shared_area(box, target)
    areas = box[..., 2] * box[..., 3] + target[..., 2] * target[..., 3]
    union = areas - both
    share = quotient(both, union)
    # with the slope of the IoU, which is exactly 0 for boxes that lie apart
    missed = quotient(areas - 2 * both, union).detach().clamp(min=0)
    return Overlap(share, missed + (share.detach() - share)), union
