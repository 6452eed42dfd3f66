"""Distance losses as their papers write them: angles by arctangent and arcsine, pair by pair."""

from math import asin, atan2, exp, hypot, pi, sin

import numpy as np
from scipy.special import expit

from tests.oracles.detection.boxes import APART, DRAWS, EDGES, FIT, POINT, Array, Pair, each_pair, over
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
STILL = [[0, 0, 0, 0]]


@oracles.of("diou", draws=DRAWS, edges=EDGES)
def diou(boxes: Array, targets: Array, *, box_format: str, eps: float) -> dict[str, Array]:
    return each_pair(boxes, targets, box_format, eps, lambda p: 1 - p.iou + p.distance)


@oracles.of("ciou", draws=DRAWS, edges=EDGES)
def ciou(boxes: Array, targets: Array, *, box_format: str, eps: float) -> dict[str, Array]:
    return each_pair(
        boxes, targets, box_format, eps, lambda p: 1 - p.iou + p.distance + weighted(p, angle_mismatch(p))
    )


@oracles.of("xiou", draws=DRAWS, edges=EDGES)
def xiou(boxes: Array, targets: Array, *, box_format: str, eps: float) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        sides = ((p.x.length, p.y.length), (p.x.target, p.y.target))
        mine, true = (expit(over(w, h + eps, np.inf if w else 0.0)) for w, h in sides)
        return 1 - p.iou + p.distance + weighted(p, (true - mine) ** 2)

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of("eiou", draws=DRAWS, edges=EDGES)
def eiou(boxes: Array, targets: Array, *, box_format: str, eps: float) -> dict[str, Array]:
    return each_pair(boxes, targets, box_format, eps, efficient)


@oracles.of(
    "focal_eiou",
    draws=[*DRAWS, ({"...": (5,)}, {"gamma": 0.0}), ({"...": (5,)}, {"gamma": 2.0})],
    edges=[*EDGES, Edge(APART.inputs, {}, {"boxes": STILL})],
)
def focal_eiou(
    boxes: Array, targets: Array, *, gamma: float, box_format: str, eps: float
) -> dict[str, Array]:
    return each_pair(boxes, targets, box_format, eps, lambda p: p.iou**gamma * efficient(p))


@oracles.of(
    "siou",
    draws=[*DRAWS, ({"...": (5,)}, {"theta": 1.0}), ({"...": (5,)}, {"theta": 2.5})],
    edges=[
        *EDGES,
        Edge(FIT.inputs, {"theta": 1.0}, {"boxes": [[np.nan] * 4]}),
        Edge(POINT.inputs, {"theta": 1.0}, {"boxes": STILL}),
        # centres on one diagonal: the angle cost is 1, where the arcsine is steep
        Edge({"boxes": [[1.0, 1, 3, 3]], "targets": [[0.0, 0, 2, 2]]}),
    ],
)
def siou(boxes: Array, targets: Array, *, theta: float, box_format: str, eps: float) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        sigma = hypot(p.x.offset, p.y.offset)
        angle = 1 - 2 * sin(asin(min(1.0, abs(p.y.offset) / sigma)) - pi / 4) ** 2 if sigma else 0.0
        distance = sum(1 - exp(-(2 - angle) * over(s.offset, s.span + eps) ** 2) for s in (p.x, p.y))
        shape = sum(
            (1 - exp(-over(abs(s.length - s.target), max(s.length, s.target) + eps))) ** theta
            for s in (p.x, p.y)
        )
        return 1 - p.iou + (distance + shape) / 2

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of(
    "wiou",
    draws=[
        *DRAWS,
        ({"...": (7,)}, {"running_mean": 0.4, "momentum": 0.3, "alpha": 1.7, "delta": 2.7}),
        ({"...": (7,)}, {"version": 2, "running_mean": 0.4, "gamma": 0.0}),
        ({"...": (7,)}, {"version": 2, "running_mean": 0.2, "gamma": 1.5}),
    ],
    edges=[
        *EDGES,
        Edge(FIT.inputs, {"version": 2}),
        # an image without objects leaves the running mean as it is
        Edge({"boxes": np.zeros((0, 4)), "targets": np.zeros((0, 4))}, {"running_mean": 0.7}),
    ],
)
def wiou(
    boxes: Array,
    targets: Array,
    *,
    version: int,
    running_mean: float,
    gamma: float,
    alpha: float,
    delta: float,
    momentum: float,
    box_format: str,
    eps: float,
) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        diagonal = p.x.span**2 + p.y.span**2 + eps
        first = exp(over(p.x.offset**2 + p.y.offset**2, diagonal)) * (1 - p.iou)
        outlier = (1 - p.iou) / running_mean
        return first * [1, outlier**gamma, outlier / (delta * alpha ** (outlier - delta))][version - 1]

    found = each_pair(boxes, targets, box_format, eps, cost)
    gap = 1 - found["iou"].mean() - running_mean if boxes.size else 0.0
    return {**found, "running_mean": np.array(running_mean + momentum * gap)}


def angle_mismatch(p: Pair) -> float:
    """Return the squared difference of the diagonals' angles, a right angle being 1."""
    angles = (atan2(w, h + p.eps) / (pi / 2) for w, h in ((p.x.length, p.y.length), (p.x.target, p.y.target)))
    mine, true = angles
    return (true - mine) ** 2


def weighted(p: Pair, mismatch: float) -> float:
    """Return a mismatch of aspect ratios times its weight."""
    return over(mismatch**2, 1 - p.iou + mismatch + p.eps)


def efficient(p: Pair) -> float:
    """Return the efficient IoU loss."""
    sides = sum(over((s.length - s.target) ** 2, s.span**2 + p.eps) for s in (p.x, p.y))
    return 1 - p.iou + p.distance + sides
