"""Repulsion as loops over boxes, targets and pairs."""

from itertools import combinations
from math import log
from typing import Any

import numpy as np

from tests.oracles.detection.boxes import Array, pair
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
SCENE = {
    "boxes": [[0.0, 0, 10, 10], [6.0, 0, 16, 10]],
    "targets": [[0.0, 0, 9, 10], [7.0, 1, 17, 11]],
    "assignments": [0, 1],
}


@oracles.of(
    "repulsion",
    draws=[
        ({"N": 12, "M": 4}, {}),
        ({"N": 9, "M": 3}, {"box_format": "cxcywh", "sigma_gt": 0.0, "sigma_box": 0.5}),
        ({"N": 6, "M": 2}, {"gt_weight": 0.0, "box_weight": 2.0, "eps": 0.5}),
    ],
    edges=[
        # one target: nobody to keep off from
        Edge(
            {"boxes": SCENE["boxes"], "targets": [[0.0, 0, 9, 10]], "assignments": [0, 0]},
            gradients={"boxes": [[0] * 4] * 2},
        ),
        # boxes that lie apart, and boxes that touch
        Edge(
            {
                **SCENE,
                "boxes": [[0.0, 0, 1, 1], [20.0, 0, 21, 1]],
                "targets": [[0.0, 0, 1, 1], [1.0, 0, 2, 1]],
            },
            gradients={"boxes": [[0] * 4] * 2},
        ),
        # a box that covers a neighbour wholly, beyond sigma and at sigma 0
        *(
            Edge({**SCENE, "boxes": [[-5.0, -5, 30, 30], [-5.0, -5, 30, 30]]}, {"sigma_gt": sigma})
            for sigma in (0.0, 0.9, 0.999)
        ),
        # a tie between two neighbours: the first, which here is the larger one, is meant
        Edge(
            {
                "boxes": [[0.0, 0, 4, 4]],
                "targets": [[0.0, 0, 4, 4], [2.0, 0, 6, 4], [-2.0, 0, 2, 4]],
                "assignments": [0],
            },
            {"eps": 1e-12},
            gradients={"boxes": [[0, np.nan, 0.25, np.nan]]},
        ),
        # points, and no weights
        Edge({**SCENE, "boxes": [[1.0, 1, 1, 1], [8.0, 2, 8, 2]]}, {"gt_weight": 0.0, "box_weight": 0.0}),
    ],
)
def repulsion(
    boxes: Array,
    targets: Array,
    assignments: Array,
    *,
    gt_weight: float,
    box_weight: float,
    sigma_gt: float,
    sigma_box: float,
    box_format: str,
    eps: float,
) -> dict[str, Any]:
    def cost(x: float, sigma: float) -> float:
        return -log(1 - x) if x <= sigma else (x - sigma) / (1 - sigma) - log(1 - sigma)

    from_targets = [0.0] * len(boxes)
    for i, box in enumerate(boxes):
        found = [(j, pair(box, t, box_format, eps)) for j, t in enumerate(targets) if j != assignments[i]]
        if found:
            _, nearest = max(found, key=lambda other: other[1].iou)  # max keeps the first of equals
            share = nearest.intersection / (nearest.x.target * nearest.y.target + eps)
            from_targets[i] = cost(share, sigma_gt)
    from_boxes = [
        cost(share, sigma_box)
        for i, j in combinations(range(len(boxes)), 2)
        if assignments[i] != assignments[j] and (share := pair(boxes[i], boxes[j], box_format, eps).iou) > 0
    ]
    rep_gt, rep_box = np.mean(from_targets), np.mean(from_boxes) if from_boxes else 0.0
    return {"loss": gt_weight * rep_gt + box_weight * rep_box, "rep_gt": rep_gt, "rep_box": rep_box}
