"""Criteria of detectors that predict at fixed anchors: matching, mining, and the losses of both heads in one."""

from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex, Integers, Mask
from service.catalogue.spec import (
    Diagnostic,
    Divisor,
    Example,
    Form,
    Prediction,
    Scales,
    SizeRange,
    Target,
    Unreduced,
)
from service.losses.detection.boxes import Boxes, BoxFormat, Pair, centre_offset, columns
from service.losses.detection.matching import best_anchors
from service.losses.digits import log_ratio
from service.losses.objects import OBJECTS, ObjectCounts, image_of
from service.losses.surprise import surprise


class MultiBoxLoss(NamedTuple):
    """The loss of each image, the number of its positive anchors, both terms, and what became of each anchor."""

    loss: Annotated[Tensor, Unreduced("B")]
    positives: Annotated[Tensor, Divisor("B")]
    class_loss: Annotated[Tensor, Diagnostic("B")]
    box_loss: Annotated[Tensor, Diagnostic("B")]
    assignment: Annotated[Tensor, Diagnostic([Form("B A", Integers())])]
    mined: Annotated[Tensor, Diagnostic([Form("B A", Mask())])]


@loss(
    title="MultiBox loss (SSD)",
    tasks=("detection",),
    aliases=("ssd", "multi_box"),
    keywords=(
        "object detection",
        "single shot detector",
        "SSD",
        "anchor boxes",
        "default boxes",
        "hard negative mining",
    ),
    requires=(SizeRange("C", least=2), *OBJECTS),
    example=Example(sizes={"A": 8}),
    work=("2 logits", "2 offsets", "3 M A", "M B"),
    range=(0, None),
    scales=Scales(0, ("anchors", "true_boxes")),
)
def multibox(
    logits: Annotated[Tensor, Prediction("B A C")],
    offsets: Annotated[Tensor, Prediction("B A 4")],
    anchors: Annotated[Tensor, Target("A 4", Boxes(solid=True))],
    labels: Annotated[Tensor, Target("M", ClassIndex("C", least=1))],
    true_boxes: Annotated[Tensor, Target("M 4", Boxes(solid=True))],
    counts: Annotated[Tensor, Target("B", ObjectCounts())],
    *,
    threshold: Annotated[float, Ge(0), Lt(1)] = 0.5,
    negative_ratio: Annotated[float, Ge(0)] = 3.0,
    box_weight: Annotated[float, Ge(0)] = 1.0,
    centre_variance: Annotated[float, Gt(0)] = 0.1,
    size_variance: Annotated[float, Gt(0)] = 0.2,
    box_format: BoxFormat = "xyxy",
) -> MultiBoxLoss:
    r"""The whole criterion of SSD: matches anchors to true boxes, mines hard negatives, adds both losses.

    Formula:
        \sum_{i \in P} -\ln p_i^{c_i} + \sum_{i \in N} -\ln p_i^0
        + \alpha \sum_{i \in P} \sum_{k = 1}^4 \mathrm{SmoothL1}(o_{ik} - g_{ik}),
        \quad p = \mathrm{softmax}(z), \quad
        g_i = \left(\frac{x^* - x_i}{v_c w_i}, \frac{y^* - y_i}{v_c h_i},
        \frac{1}{v_s} \ln \frac{w^*}{w_i}, \frac{1}{v_s} \ln \frac{h^*}{h_i}\right),
        \quad |N| \le r |P|, \quad d = |P|

    Args:
        logits: Scores of the classes at each anchor; class 0 is the background.
        offsets: o, where each anchor's object lies as seen from the anchor: centre, then logarithms of the sides.
        anchors: Default boxes, the same for all images, in `box_format`.
        labels: Class of each true box, from 1 on, image after image.
        true_boxes: The true boxes, image after image, in `box_format`.
        counts: How many true boxes each image has; 0 is fine.
        threshold: IoU above which an anchor is positive.
        negative_ratio: r, most negatives for each positive of an image.
        box_weight: Alpha, the weight of the box loss.
        centre_variance: Unit of the first two offsets, in sides of the anchor.
        size_variance: Unit of the last two offsets.
        box_format: `xyxy` for two corners, `xywh` for top-left corner and size, `cxcywh` for centre and size.

    Use when:
        You train SSD or another detector with fixed anchors, and the server should match, mine and encode.

    Pitfalls:
        The mean divides by the positives of all images together, as the paper does; without any it is 0, and an
        image without true boxes costs nothing. Labels start at 1. Each true box claims the anchor that it
        overlaps most, however little; an anchor that several claim goes to the one that overlaps it most, else
        to the first, and implementations differ there. Anchors are matched by IoU alone, whatever the
        predictions. Negatives are chosen in each image by their class loss, a choice that has no gradient. The
        variances must be those that your decoder uses. The diagnostic `assignment` counts the true boxes of all
        images together from 0 on, and is -1 for the background.

    Sources:
        - Liu et al. (2016), SSD: Single Shot MultiBox Detector, https://arxiv.org/abs/1512.02325
        - Erhan et al. (2014), Scalable Object Detection using Deep Neural Networks, https://arxiv.org/abs/1312.2249
    """
    image = image_of(counts, len(labels))
    assignment = best_anchors(anchors, true_boxes, image, len(counts), box_format, threshold)
    positive = assignment >= 0
    # in front of the true boxes stands the background, as large as a unit
    classes = torch.cat([labels.new_zeros(1), labels])[assignment + 1]
    nothing = F.pad(true_boxes.new_ones(1, 2), (2, 0))
    objects = columns(torch.cat([nothing, true_boxes])[assignment + 1])
    mined = _hardest(surprise(logits.detach(), torch.zeros_like(classes), -1), positive, negative_ratio)
    learning = torch.where(positive | mined, classes, -1)
    class_loss = surprise(logits, learning, -1, ignore=-1).sum(1)
    pair = Pair(objects, columns(anchors)[:, None], box_format)
    missed = columns(offsets) - _encoded(pair, centre_variance, size_variance)
    missed = torch.where(positive, missed, 0.0)
    box_loss = F.smooth_l1_loss(missed, torch.zeros_like(missed), reduction="none").sum((0, 2))
    return MultiBoxLoss(
        class_loss + box_weight * box_loss,
        positive.sum(1).to(logits),
        class_loss,
        box_loss,
        assignment,
        mined,
    )


def _hardest(losses: Tensor, positive: Tensor, ratio: float) -> Tensor:
    """Return the negatives of the highest losses in each row, so many for each of its positives."""
    ranked = losses.masked_fill(positive, -1.0)
    order = torch.sort(ranked, stable=True, dim=-1, descending=True).indices
    most = (ratio * positive.sum(1, keepdim=True)).floor()
    leading = torch.arange(losses.shape[1], device=losses.device) < most
    return torch.zeros_like(positive).scatter(1, order, leading) & ~positive


def _encoded(pair: Pair, centre_variance: float, size_variance: float) -> Tensor:
    """Return boxes as offsets ``[4, ...]`` from the anchors that are their targets."""
    # sides that rounding made 0 have a logarithm
    least = torch.finfo(pair.box.dtype).tiny
    sides, anchor_sides = pair.sides.clamp(min=least), pair.target_sides.clamp(min=least)
    shift = centre_offset(pair) / anchor_sides
    growth = log_ratio(sides, anchor_sides, pair.growth)
    return torch.cat([shift / centre_variance, growth / size_variance])
