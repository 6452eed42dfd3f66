"""The criterion of DETR as the paper has it, image by image, with the cheapest of all matches."""

from functools import partial
from typing import Any

import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.sets import Array, Integers, by_layer, cheapest, focal, matching, scenes, softmax

oracles = Oracles()
SCENE = {
    "logits": [
        [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [0.3, 0.2, 1.5]],
        [[-1.0, 0.5, 0.0], [0.1, 0.2, 0.3], [1, 0, 2]],
    ],
    "boxes": [
        [[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.4, 0.2], [0.8, 0.2, 0.1, 0.1]],
        [[0.5, 0.5, 0.5, 0.5], [0.2, 0.7, 0.3, 0.2], [0.4, 0.1, 0.2, 0.2]],
    ],
    "labels": [0, 1, 1],
    "true_boxes": [[0.35, 0.43, 0.21, 0.22], [0.55, 0.52, 0.33, 0.31], [0.3, 0.61, 0.22, 0.25]],
    "counts": [2, 1],
}
NOTHING: dict[str, Any] = {**SCENE, "labels": np.zeros(0), "true_boxes": np.zeros((0, 4)), "counts": [0, 0]}
POINTS = {**SCENE, "boxes": [[[0.5, 0.5, 0.0, 0.0]] * 3] * 2, "true_boxes": [[0.5, 0.5, 0.0, 0.0]] * 3}
CROWD = {
    "logits": [[[2.0, -1.0, 0.5], [0.0, 1.0, -0.5]]],
    "boxes": [[[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.4, 0.2]]],
    "labels": [0, 1, 1, 0],
    "true_boxes": [[0.35, 0.4, 0.2, 0.2], [0.55, 0.5, 0.3, 0.3], [0.3, 0.6, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]],
    "counts": [4],
}


@oracles.of(
    "detr",
    draws=[
        ({"B": 3, "Q": 6, "K": 7, "M": 8}, {}),
        ({"B": 3, "Q": 6, "K": 7, "M": 8, "L": 3}, {"classification": "sigmoid_focal", "num_boxes": 2.5}),
        ({"B": 1, "Q": 3, "K": 3, "M": 6}, {"class_cost": 3.0, "l1_cost": 0.0, "no_object_weight": 0.7}),
        ({"B": 4, "Q": 5, "K": 4, "M": 6}, {"giou_cost": 0.0, "l1_weight": 0.5, "giou_weight": 3.0}),
        (
            {"B": 2, "Q": 5, "K": 4, "M": 4},
            {"classification": "sigmoid_focal", "focal_alpha": None, "focal_gamma": 0.0, "class_weight": 2.0},
        ),
        (
            {"B": 2, "Q": 5, "K": 4, "M": 4},
            {"classification": "sigmoid_focal", "focal_alpha": 0.9, "focal_gamma": 1.3, "num_boxes": 0.0},
        ),
    ],
    edges=[
        Edge(SCENE),
        # no true box in any image: nothing but the class no object
        Edge(NOTHING, gradients={"boxes": np.zeros((2, 3, 4)).tolist()}),
        Edge(NOTHING, {"classification": "sigmoid_focal"}),
        # and without a weight of that class nothing at all
        Edge(NOTHING, {"no_object_weight": 0.0}, gradients={"logits": np.zeros((2, 3, 3)).tolist()}),
        Edge(SCENE, {"no_object_weight": 0.0}),
        # all boxes of one image
        Edge({**SCENE, "counts": [0, 3]}),
        # more boxes than queries: as many are left over
        Edge(CROWD),
        Edge(CROWD, {"classification": "sigmoid_focal"}),
        # boxes without area, the same and others
        Edge({**POINTS, "labels": [0, 1, 0]}),
        Edge({**POINTS, "true_boxes": [[0.2, 0.2, 0.0, 0.0], [0.2, 0.6, 0.3, 0.0], [0.1, 0.1, 0.0, 0.2]]}),
        # no weight, no cost
        Edge(SCENE, {"class_weight": 0.0, "l1_weight": 0.0, "giou_weight": 0.0}),
    ],
)
def detr(
    logits: Array, boxes: Array, labels: Integers, true_boxes: Array, counts: Integers, **params: Any
) -> dict[str, Any]:
    one = partial(_of_layer, labels=labels, true_boxes=true_boxes, counts=counts, **params)
    return by_layer(one, {"logits": logits, "boxes": boxes}, 3)


def _of_layer(
    logits: Array,
    boxes: Array,
    labels: Integers,
    true_boxes: Array,
    counts: Integers,
    *,
    classification: str,
    class_cost: float,
    l1_cost: float,
    giou_cost: float,
    class_weight: float,
    l1_weight: float,
    giou_weight: float,
    no_object_weight: float,
    focal_alpha: float | None,
    focal_gamma: float,
    num_boxes: float | None,
) -> dict[str, Any]:
    softmaxed = classification == "softmax"
    columns = logits.shape[2]
    total = max(len(labels) if num_boxes is None else num_boxes, 1)
    found: dict[int, int] = {}
    l1 = giou = cost = weights = 0.0
    for image, objects in scenes(counts):

        def match(query: int, each: int, image: int = image) -> float:
            scores, label = logits[image, query], labels[each]
            if softmaxed:
                of_class = -softmax(scores)[label]
            else:
                yes, no = (focal(scores[label], truth, focal_alpha, focal_gamma) for truth in (True, False))
                of_class = yes - no
            box, true = boxes[image, query], true_boxes[each]
            return (
                class_cost * of_class
                + l1_cost * np.abs(box - true).sum()
                - giou_cost * generalized(box, true)
            )

        of_image = cheapest(logits.shape[1], objects, match)
        found |= of_image
        labelled = {query: labels[each] for each, query in of_image.items()}
        for query, scores in enumerate(logits[image]):
            label = labelled.get(query)
            if softmaxed:
                weight = no_object_weight if label is None else 1.0
                cost -= weight * np.log(softmax(scores)[columns - 1 if label is None else label])
                weights += weight
            else:
                cost += sum(focal(z, k == label, focal_alpha, focal_gamma) for k, z in enumerate(scores))
        for each, query in of_image.items():
            l1 += np.abs(boxes[image, query] - true_boxes[each]).sum() / total
            giou += (1 - generalized(boxes[image, query], true_boxes[each])) / total
    of_class = cost / (weights or 1.0) if softmaxed else cost / total
    return {
        "loss": class_weight * of_class + l1_weight * l1 + giou_weight * giou,
        "matching": matching(counts, found),
        "class": of_class,
        "l1": l1,
        "giou": giou,
    }


def generalized(box: Array, other: Array) -> float:
    """Return the GIoU of two boxes by their corners; 0/0 is 1 of the same boxes, and no empty share of a flat one."""
    (low, high), (other_low, other_high) = _corners(box), _corners(other)
    shared = np.prod(np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None))
    union = box[2] * box[3] + other[2] * other[3] - shared
    iou = shared / union if union else float(np.array_equal(box, other))
    enclosing = np.prod(np.maximum(high, other_high) - np.minimum(low, other_low))
    return float(iou - ((enclosing - union) / enclosing if enclosing else 0.0))


def _corners(box: Array) -> tuple[Array, Array]:
    return box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
