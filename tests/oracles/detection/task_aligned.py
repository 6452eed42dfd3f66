"""Task-aligned assignment as loops over true boxes and points, and its three losses from their definitions."""

from math import atan, exp, log, log1p, pi
from typing import Any

import numpy as np

from tests.oracles.detection.boxes import Array, over, pair
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()


def peaked(*distances: float) -> list[list[float]]:
    """Return distributions over 5 bins whose means are near these distances."""
    return [[4.0 * max(0.0, 1 - abs(distance - b)) for b in range(5)] for distance in distances]


POINTS = [[5.0, 5], [15.0, 5], [5.0, 15], [15.0, 15], [10.0, 10]]
SCENE: dict[str, Any] = {
    "logits": [[[0.5, -1], [2, 0], [0, 0], [-3, 2], [-1, 0.5]]] * 2,
    "distributions": [
        [
            peaked(0.4, 0.5, 1, 1),
            peaked(1, 1, 0.5, 1),
            peaked(1, 1, 1, 1),
            peaked(1, 1, 1, 1),
            peaked(0, 1, 1, 1),
        ]
    ]
    * 2,
    "anchor_points": POINTS,
    "strides": [10.0, 10, 10, 10, 20],
    "labels": [0, 1, 0],
    "true_boxes": [[0.0, 0, 16, 14], [4.0, 3, 20, 20], [12.0, 12, 90, 17]],
    "counts": [0, 3],
}
NO_BOXES = {**SCENE, "labels": np.zeros(0), "true_boxes": np.zeros((0, 4)), "counts": [0, 0]}


def with_boxes(*boxes: list[float], **changes: Any) -> dict[str, Any]:
    """Return the scene with these true boxes in its second image."""
    labels = [place % 2 for place in range(len(boxes))]
    return {**SCENE, "labels": labels, "true_boxes": list(boxes), "counts": [0, len(boxes)], **changes}


@oracles.of(
    "task_aligned",
    draws=[
        ({"A": 40, "M": 12, "B": 2, "C": 5, "K": 8}, {}),
        ({"A": 40, "M": 9, "B": 3, "C": 2}, {"top_k": 2, "box_format": "cxcywh"}),
        ({"A": 30, "M": 6, "B": 1}, {"top_k": 1, "alpha": 0.0, "beta": 1.0, "box_format": "xywh"}),
        ({"A": 30, "M": 6, "B": 2}, {"top_k": 3, "alpha": 1.0, "beta": 0.0, "fit": "ciou"}),
        ({"A": 30, "M": 6, "B": 2}, {"top_k": 4, "fit": "ciou", "class_weight": 0.3, "dfl_weight": 0.0}),
        ({"A": 1, "M": 2, "B": 3, "C": 1, "K": 2}, {"box_weight": 0.0}),
    ],
    edges=[
        Edge(SCENE),
        Edge(SCENE, {"top_k": 1}),
        Edge(NO_BOXES, gradients={"distributions": np.zeros((2, 5, 4, 5)).tolist()}),
        # points on the border of a box are outside it, and a box without points, or without area, learns nothing
        Edge(with_boxes([5.0, 0, 16, 14], [0.0, 0, 4, 4], [5.0, 5, 5, 5], [2.0, 5, 9, 5])),
        # equal points: the first ones
        Edge(
            {
                **with_boxes([0.0, 0, 20, 20]),
                "logits": np.zeros((2, 5, 2)),
                "distributions": np.zeros((2, 5, 4, 5)),
                "strides": [10.0] * 5,
            },
            {"top_k": 3},
        ),
        # two boxes that are the same: all points are the first one's
        Edge(with_boxes([0.0, 0, 20, 20], [0.0, 0, 20, 20], labels=[1, 1])),
        # sides that are longer than the bins
        Edge(with_boxes([-90.0, -90, 190, 190])),
        # scores that vanish, whose metric is no number in any dtype
        Edge({**SCENE, "logits": -500 + np.array(SCENE["logits"])}),
        Edge({**SCENE, "logits": 500 * np.array(SCENE["logits"])}),
        # distances that are certain
        Edge({**SCENE, "distributions": 50 * np.array(SCENE["distributions"])}),
    ],
)
def task_aligned(
    logits: Array,
    distributions: Array,
    anchor_points: Array,
    strides: Array,
    labels: Array,
    true_boxes: Array,
    counts: Array,
    *,
    top_k: int,
    alpha: float,
    beta: float,
    fit: str,
    class_weight: float,
    box_weight: float,
    dfl_weight: float,
    box_format: str,
) -> dict[str, Any]:
    images, points, classes = logits.shape
    true = [cornered(box, box_format) for box in true_boxes]
    assignment = np.full((images, points), -1)
    scores = np.zeros((images, points))
    targets = np.zeros((images, points, classes))
    box_loss = dfl_loss = 0.0
    for b in range(images):
        own = range(sum(counts[:b]), sum(counts[: b + 1]))
        boxes = [decoded(distributions[b, a], anchor_points[a], strides[a]) for a in range(points)]
        ious = {(m, a): pair(boxes[a], true[m], "xyxy", 0.0).iou for m in own for a in range(points)}
        fits = {
            (m, a): ious[m, a] if fit == "iou" else max(0.0, 1 - complete(boxes[a], true[m])) for m, a in ious
        }
        metric: dict[tuple[int, int], float] = {}
        for m, a in ious:
            x, y = anchor_points[a]
            left, top, right, bottom = true[m]
            if left < x < right and top < y < bottom and (beta == 0 or fits[m, a] > 0):
                score = -float(np.logaddexp(0, -logits[b, a, labels[m]]))
                metric[m, a] = alpha * score + (beta * log(fits[m, a]) if beta else 0.0)
        taken = {
            m: sorted((a for a in range(points) if (m, a) in metric), key=lambda a: -metric[m, a])
            for m in own
        }
        taken = {m: places[:top_k] for m, places in taken.items()}
        for a in range(points):
            takers = [m for m in own if a in taken[m]]
            assignment[b, a] = max(takers, key=lambda m: fits[m, a], default=-1)
        for m in own:
            places = [a for a in range(points) if assignment[b, a] == m]
            for a in places:
                most = max(metric[m, j] for j in places)
                scores[b, a] = exp(metric[m, a] - most) * max(fits[m, j] for j in places)
                targets[b, a, labels[m]] = scores[b, a]
                box_loss += scores[b, a] * complete(boxes[a], true[m])
                (x, y), (left, top, right, bottom) = anchor_points[a], true[m]
                sides = np.array([x - left, y - top, right - x, bottom - y]) / strides[a]
                dfl_loss += scores[b, a] * sum(map(focal, distributions[b, a], sides)) / 4
    class_loss = float((targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)).sum())
    return {
        "loss": class_weight * class_loss + box_weight * box_loss + dfl_weight * dfl_loss,
        "divisor": max(scores.sum(), 1.0),
        "class_loss": class_loss,
        "box_loss": box_loss,
        "dfl_loss": dfl_loss,
        "assignment": assignment,
        "target_scores": scores,
    }


def decoded(distributions: Array, point: Array, stride: float) -> Array:
    """Return the corners of the box of a point."""
    left, top, right, bottom = (
        stride * sum(k * exp(q - max(row)) for k, q in enumerate(row)) / sum(exp(q - max(row)) for q in row)
        for row in distributions
    )
    return np.array([point[0] - left, point[1] - top, point[0] + right, point[1] + bottom])


def complete(box: Array, true: Array) -> float:
    """Return the loss of the complete IoU."""
    each = pair(box, true, "xyxy", 0.0)
    angles = [
        atan(w / h) if h else pi / 2
        for w, h in [(each.x.length, each.y.length), (each.x.target, each.y.target)]
    ]
    mismatch = (2 / pi * (angles[0] - angles[1])) ** 2
    return 1 - each.iou + each.distance + over(mismatch, 1 - each.iou + mismatch) * mismatch


def focal(scores: Array, distance: float) -> float:
    """Return the distribution focal loss."""
    distance = min(distance, len(scores) - 1)
    lower = min(int(distance), len(scores) - 2)
    return (lower + 1 - distance) * surprise(scores, lower) + (distance - lower) * surprise(scores, lower + 1)


def surprise(scores: Array, label: int) -> float:
    """Return the cross entropy of a class."""
    best = int(np.argmax(scores))
    rest = sum(exp(score - scores[best]) for place, score in enumerate(scores) if place != best)
    return scores[best] - scores[label] + log1p(rest)


def cornered(box: Array, box_format: str) -> Array:
    """Return the corners of a box."""
    a, b, c, d = (float(number) for number in box)
    if box_format == "xyxy":
        return np.array([a, b, c, d])
    return np.array(
        [a, b, a + c, b + d] if box_format == "xywh" else [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    )
