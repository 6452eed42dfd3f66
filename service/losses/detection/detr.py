"""The criterion of DETR: boxes and classes of a set of queries, matched one to one with the true objects."""

from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Facts
from service.catalogue.spec import Diagnostic, Example, Form, Prediction, Target, Unreduced
from service.losses.detection.boxes import Boxes, Pair, columns, empty_share, overlap
from service.losses.objects import OBJECTS, ObjectCounts
from service.losses.sets import (
    LAYERS,
    MATCHING,
    Classification,
    Classifier,
    ObjectLabels,
    match_objects,
    read_scenes,
)


class RelativeBoxes(Boxes):
    """Boxes by centre and size, in fractions of the image."""

    def describe(self) -> str:
        return "boxes as centre and size (cx, cy, w, h), with finite numbers and sides of at least 0"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        centre, sides = values.chunk(2, -1)
        return torch.cat([centre.isfinite(), (sides >= 0) & sides.isfinite()], -1)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        place, sides = torch.rand(shape, generator=rng, dtype=torch.float64).chunk(2, -1)
        sides = 0.1 + 0.4 * sides
        return torch.cat([sides / 2 + place * (1 - sides), sides], -1)


class DetectionSetLoss(NamedTuple):
    """The weighted total, the query of each true box, and the terms before they are weighed."""

    loss: Annotated[Tensor, Unreduced("")]
    matching: Annotated[Tensor, Diagnostic(MATCHING, upto="counts")]
    class_: Annotated[Tensor, Diagnostic(LAYERS)]
    l1: Annotated[Tensor, Diagnostic(LAYERS)]
    giou: Annotated[Tensor, Diagnostic(LAYERS)]


@loss(
    title="DETR",
    tasks=("detection",),
    aliases=("set_criterion", "detection_set", "hungarian_detection"),
    keywords=(
        "object detection",
        "DETR",
        "Deformable DETR",
        "DINO",
        "Hungarian matching",
        "bipartite matching",
        "set prediction",
    ),
    on_cpu=True,
    requires=OBJECTS,
    example=Example(sizes={"L": 2, "B": 2, "Q": 4, "K": 4, "M": 3}),
    work=(
        "8 L M Q",
        "8 M Q",
        "L M M Q/48",
        "M M Q/48",
        "L B M",
        "B M",
        "64 L B",
        "64 B",
        "2 logits",
        "boxes",
    ),
    range=(0, None),
)
def detr(
    logits: Annotated[Tensor, Prediction((Form("B Q K"), Form("L B Q K")))],
    boxes: Annotated[Tensor, Prediction((Form("B Q 4", RelativeBoxes()), Form("L B Q 4", RelativeBoxes())))],
    labels: Annotated[Tensor, Target("M", ObjectLabels(focal=True))],
    true_boxes: Annotated[Tensor, Target("M 4", RelativeBoxes())],
    counts: Annotated[Tensor, Target("B", ObjectCounts())],
    *,
    classification: Classification = "softmax",
    class_cost: Annotated[float, Ge(0)] = 1.0,
    l1_cost: Annotated[float, Ge(0)] = 5.0,
    giou_cost: Annotated[float, Ge(0)] = 2.0,
    class_weight: Annotated[float, Ge(0)] = 1.0,
    l1_weight: Annotated[float, Ge(0)] = 5.0,
    giou_weight: Annotated[float, Ge(0)] = 2.0,
    no_object_weight: Annotated[float, Ge(0)] = 0.1,
    focal_alpha: Annotated[float, Ge(0), Le(1)] | None = 0.25,
    focal_gamma: Annotated[float, Ge(0)] = 2.0,
    num_boxes: Annotated[float, Ge(0)] | None = None,
) -> DetectionSetLoss:
    r"""Matches queries with true boxes one to one, then adds up class, L1 and GIoU losses: detection transformers.

    Formula:
        \lambda_c \mathcal L_c + \frac{1}{n} \sum_j \Bigl(\lambda_1 \lVert b_{\sigma(j)} - b^*_j \rVert_1
        + \lambda_g \bigl(1 - \mathrm{GIoU}(b_{\sigma(j)}, b^*_j)\bigr)\Bigr), \quad
        \mathcal L_c = \begin{cases}
        \sum_i w_{y_i} (-\ln p_i(y_i)) \big/ \sum_i w_{y_i} & \text{softmax} \\
        \frac{1}{n} \sum_{i,k} \mathrm{focal}(z_{ik}, [y_i = k]) & \text{sigmoid focal} \end{cases}, \quad
        n = \max(\text{num boxes}, 1)

    Args:
        logits: Scores of each query (Q) of each image (B): K columns, a class each and under `softmax` a last
            one for no object; perhaps of each layer of the decoder (L).
        boxes: The box of each query: centre and size, as fractions of the image's sides.
        labels: The class of each true box, those of the first image first.
        true_boxes: The true boxes of all images, in the same order.
        counts: How many true boxes each image has.
        classification: Whether classes exclude each other, and no object is one of them (softmax), or each has
            a sigmoid and a focal loss, as in Deformable DETR and its successors.
        class_cost: Weight of the class in the cost of a match: minus its probability, or the focal loss of a
            positive less that of a negative.
        l1_cost: Weight of the L1 distance of boxes in the cost of a match.
        giou_cost: Weight of minus the GIoU in the cost of a match.
        class_weight: Weight of the class loss in the total.
        l1_weight: Weight of the L1 loss of boxes in the total.
        giou_weight: Weight of the GIoU loss in the total.
        no_object_weight: w of no object under `softmax`; that of a class is 1.
        focal_alpha: Weight of positives of the focal loss, that of negatives is one minus it; null weighs none.
        focal_gamma: How fast easy classes of the focal loss fade.
        num_boxes: The number that sums over boxes are divided by, at least 1; null takes the number of true
            boxes sent. Workers whose gradients are averaged send the mean of their numbers.

    Use when:
        A detector predicts a fixed number of boxes and classes with neither anchors nor suppression.

    Pitfalls:
        A batch with other numbers of true boxes has another divisor, so the mean of shards is not the loss of
        the batch: send `num_boxes`. Under `softmax` no object is the last column, not the first. The matching is
        constant to the gradient, and the value jumps in its slope where it changes. An image may have no true
        boxes; where it has more than queries, those left over have no query (-1 in `matching`) and no loss.
        Each layer is matched on its own, and the value is the sum over layers. Two boxes without area have a
        GIoU of 1 where they are the same, and two whose enclosing box is flat have no empty share, where
        libraries give NaN. Predictions whose costs are not finite are refused.

    Sources:
        - Carion et al. (2020), End-to-End Object Detection with Transformers,
          https://arxiv.org/abs/2005.12872
        - Zhu et al. (2021), Deformable DETR, https://arxiv.org/abs/2010.04159
    """
    scenes = read_scenes(logits, labels, counts)
    boxes = boxes.reshape(*scenes.logits.shape[:2], 4)
    truths = scenes.each(true_boxes)
    total = max(float(len(labels)) if num_boxes is None else num_boxes, 1.0)
    classifier = Classifier(classification == "sigmoid_focal", no_object_weight, focal_alpha, focal_gamma)
    with torch.no_grad():
        # in float64, so that the match does not depend on the dtype
        each, true = columns(boxes.double())[:, scenes.scene], columns(truths.double())[..., None]
        costs = {
            "logits": class_cost * classifier.costs(scenes),
            "boxes": l1_cost * (each - true).abs().sum(0) + giou_cost * _giou_losses(each, true),
        }
        matches = match_objects(scenes, costs, len(labels))
    of_class = classifier.loss(scenes, matches, total)
    matched, true = columns(matches.of(boxes, truths)), columns(truths)
    l1 = scenes.summed((matched - true).abs().sum(0)) / total
    giou = scenes.summed(_giou_losses(matched, true)) / total
    value = (class_weight * of_class + l1_weight * l1 + giou_weight * giou).sum()
    return DetectionSetLoss(value, matches.matching, of_class, l1, giou)


def _giou_losses(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return one minus the GIoU of boxes ``[4, ...]`` and targets that they broadcast with."""
    pair = Pair(boxes, targets, "cxcywh")
    return overlap(pair, 0.0).loss + empty_share(pair, 0.0)
