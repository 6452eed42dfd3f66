"""The criteria of detectors with anchors as loops over images, true boxes and anchors."""

from math import exp, floor, inf, log
from typing import Any

import numpy as np

from tests.oracles.detection.boxes import Array, pair
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()

ANCHORS = [[0.0, 0, 10, 10], [0.0, 0, 10, 5], [20.0, 20, 30, 40], [21.0, 20, 31, 40], [50.0, 50, 60, 60]]
SCENE: dict[str, Any] = {
    "logits": [[[0.5, 1, -1], [2, 0, 0], [0, 0, 3], [0.5, 2, 0], [-1, 0, 0.5]]] * 2,
    "offsets": [[[0.1, -0.2, 0.3, 2], [0, 0, 0, 0], [1, 1, 1, 1], [0, 3, 0, -3], [0, 0, 0, 0]]] * 2,
    "anchors": ANCHORS,
    "labels": [1, 2, 2],
    "true_boxes": [[1.0, 0, 10, 10], [20.5, 20, 30.5, 41], [100.0, 100, 101, 101]],
    "counts": [0, 3],
}
NO_BOXES = {**SCENE, "labels": np.zeros(0), "true_boxes": np.zeros((0, 4)), "counts": [0, 0]}


def with_boxes(*boxes: list[float], **changes: Any) -> dict[str, Any]:
    """Return the scene with these true boxes in its second image."""
    labels = [1 + place % 2 for place in range(len(boxes))]
    return {**SCENE, "labels": labels, "true_boxes": list(boxes), "counts": [0, len(boxes)], **changes}


@oracles.of(
    "multibox",
    draws=[
        ({"A": 30, "M": 12, "B": 3, "C": 5}, {}),
        (
            {"A": 30, "M": 9, "B": 2, "C": 2},
            {"threshold": 0.2, "negative_ratio": 0.7, "box_format": "cxcywh"},
        ),
        ({"A": 5, "M": 9, "B": 1}, {"threshold": 0.0, "box_weight": 0.3, "box_format": "xywh"}),
        ({"A": 40, "M": 1, "B": 2}, {"centre_variance": 1.0, "size_variance": 0.5, "negative_ratio": 0.0}),
        ({"A": 1, "M": 3, "B": 2}, {"box_weight": 0.0}),
    ],
    edges=[
        Edge(SCENE),
        # an image without true boxes has no gradient
        Edge(SCENE, gradients={"offsets": [[[0] * 4] * 5, [[np.nan] * 4] * 5]}),
        Edge(NO_BOXES, gradients={"logits": [[[0] * 3] * 5] * 2, "offsets": [[[0] * 4] * 5] * 2}),
        # an IoU of exactly the threshold is not above it
        Edge(with_boxes([0.0, 0, 10, 5])),
        # an anchor that several boxes claim: the box that overlaps it most, the first of equals
        Edge(with_boxes([21.0, 20, 31, 34], [21.0, 20, 31, 36])),
        Edge(with_boxes([50.0, 50, 60, 55], [50.0, 55, 60, 60])),
        # the best anchor of one box overlaps another one more
        Edge(with_boxes([0.0, 0, 10, 5], [0.0, 0, 10, 4])),
        # as far away from two anchors, and from all
        Edge(with_boxes([20.5, 20, 30.5, 40])),
        Edge(with_boxes([90.0, 90, 91, 91])),
        # negatives that are equally hard: the first ones
        Edge({**SCENE, "logits": np.zeros((2, 5, 3))}),
        # classes that are certain, rightly or wrongly
        Edge({**SCENE, "logits": 500 * np.array(SCENE["logits"])}),
    ],
)
def multibox(
    logits: Array,
    offsets: Array,
    anchors: Array,
    labels: Array,
    true_boxes: Array,
    counts: Array,
    *,
    threshold: float,
    negative_ratio: float,
    box_weight: float,
    centre_variance: float,
    size_variance: float,
    box_format: str,
) -> dict[str, Any]:
    images, places = logits.shape[:2]
    assignment = np.full((images, places), -1)
    mined = np.zeros((images, places), dtype=bool)
    class_loss, box_loss = np.zeros(images), np.zeros(images)
    for b in range(images):
        own = range(sum(counts[:b]), sum(counts[: b + 1]))
        share = {
            (m, a): pair(true_boxes[m], anchors[a], box_format, 0.0).iou for m in own for a in range(places)
        }
        for a in range(places):
            best = max(own, key=lambda m: share[m, a], default=None)
            if best is not None and share[best, a] > threshold:
                assignment[b, a] = best
        # the weakest claim first, so that stronger and earlier ones replace it
        claims = {m: max(range(places), key=lambda a: share[m, a]) for m in own}
        for m in sorted(own, key=lambda m: (share[m, claims[m]], -m)):
            if share[m, claims[m]] > 0:
                assignment[b, claims[m]] = m
        positive = [a for a in range(places) if assignment[b, a] >= 0]
        negative = [a for a in range(places) if assignment[b, a] < 0]
        hardest = sorted(negative, key=lambda a: -surprise(logits[b, a], 0))
        for a in hardest[: floor(negative_ratio * len(positive))]:
            mined[b, a] = True
            class_loss[b] += surprise(logits[b, a], 0)
        for a in positive:
            m = assignment[b, a]
            class_loss[b] += surprise(logits[b, a], int(labels[m]))
            (x, y, w, h), (ax, ay, aw, ah) = (
                centred(true_boxes[m], box_format),
                centred(anchors[a], box_format),
            )
            place = [(x - ax) / aw / centre_variance, (y - ay) / ah / centre_variance]
            size = [log(w / aw) / size_variance, log(h / ah) / size_variance]
            missed = np.abs(offsets[b, a] - [*place, *size])
            box_loss[b] += sum(d**2 / 2 if d < 1 else d - 0.5 for d in missed)
    return {
        "loss": class_loss + box_weight * box_loss,
        "divisor": (assignment >= 0).sum(1),
        "class_loss": class_loss,
        "box_loss": box_loss,
        "assignment": assignment,
        "mined": mined,
    }


def surprise(scores: Array, label: int) -> float:
    """Return the cross entropy of a class by the odds of the others against it."""
    odds = [score - scores[label] for c, score in enumerate(scores) if c != label]
    most = max(*odds, 0.0) if len(odds) > 1 else max(odds[0], 0.0)
    return most + log(exp(-most) + sum(exp(each - most) for each in odds)) if most < inf else inf


def centred(box: Array, box_format: str) -> tuple[float, float, float, float]:
    """Return the centre and the sides of a box."""
    a, b, c, d = (float(number) for number in box)
    if box_format == "xyxy":
        return (a + c) / 2, (b + d) / 2, c - a, d - b
    return (a + c / 2, b + d / 2, c, d) if box_format == "xywh" else (a, b, c, d)
