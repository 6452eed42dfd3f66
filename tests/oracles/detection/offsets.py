"""Offset losses from their origins: Gaussians as matrices, and the gradients of balanced L1 integrated."""

from itertools import product
from math import exp, expm1, log, log1p, sqrt

import numpy as np
from scipy.integrate import quad

from tests.oracles.detection.boxes import DRAWS, EDGES, FIT, POINT, Array, Pair, each_pair, over
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
STILL = [[0, 0, 0, 0]]


@oracles.of(
    "nwd",
    draws=[*DRAWS, ({"...": (4,)}, {"constant": 2.0})],
    edges=[*EDGES, *(Edge(edge.inputs, {}, {"boxes": STILL}) for edge in (FIT, POINT))],
)
def nwd(boxes: Array, targets: Array, *, constant: float, box_format: str, eps: float) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        mine, true = np.diag([p.x.length**2, p.y.length**2]) / 4, np.diag([p.x.target**2, p.y.target**2]) / 4
        roots = np.sqrt(mine) - np.sqrt(true)
        squared = p.x.offset**2 + p.y.offset**2 + np.trace(roots @ roots.T)
        return 1 - exp(-sqrt(squared) / constant)

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of(
    "mpdiou",
    draws=DRAWS,
    edges=[Edge(edge.inputs, {"image_width": 8.0, "image_height": 6.0}) for edge in EDGES],
)
def mpdiou(
    boxes: Array, targets: Array, *, image_width: float, image_height: float, box_format: str, eps: float
) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        corners = (
            (side.offset + sign * (side.length - side.target) / 2) ** 2
            for side, sign in product((p.x, p.y), (-1, 1))
        )
        return 1 - p.iou + sum(corners) / (image_width**2 + image_height**2)

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of("bounded_iou", draws=[*DRAWS, ({"...": (4,)}, {"beta": 2.0})], edges=EDGES)
def bounded_iou(
    boxes: Array, targets: Array, *, beta: float, box_format: str, eps: float
) -> dict[str, Array]:
    def huber(error: float) -> float:
        return error**2 / (2 * beta) if error < beta else error - beta / 2

    def cost(p: Pair) -> list[float]:
        # the IoU at best: of two equal boxes moved apart, of two boxes one inside the other
        moved = [
            over(max(0.0, s.target - 2 * abs(s.offset)), s.target + 2 * abs(s.offset) + eps, 1.0)
            for s in p[:2]
        ]
        scaled = [
            min(over(s.target, s.length + eps, 1.0), over(s.length, s.target + eps, 1.0)) for s in p[:2]
        ]
        return [huber(1 - best) for best in (*moved, *scaled)]

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of(
    "balanced_l1",
    draws=[
        ({"...": (3, 4)}, {"beta": 0.3}),
        ({"...": (8,)}, {"beta": 2.5, "alpha": 1.2, "gamma": 0.4}),
        ({"...": (8,)}, {"alpha": 0.02, "gamma": 1.5}),
    ],
    edges=[
        # at the kink, at beta, and far beyond it
        Edge(
            {"predictions": [2.0, 1.0, 1e4, -1e4], "targets": [2.0, 0.0, 0.0, 0.0]},
            gradients={"predictions": [0, 1.5, 1.5, -1.5]},
        ),
        # for beta above 1 the loss stays positive near 0
        Edge({"predictions": [0.05], "targets": [0.0]}, {"beta": 2.0}),
        # e to the power of gamma / alpha is beyond float32
        Edge(
            {"predictions": [0.0, 1e-6, 0.3, -1.0, 7.0], "targets": [0.0] * 5},
            {"alpha": 0.01, "gamma": 1.5, "beta": 0.8},
            gradients={"predictions": [0, 1.5 + 0.01 * log(1e-6 / 0.8), 1.5 + 0.01 * log(0.375), -1.5, 1.5]},
        ),
    ],
)
def balanced_l1(predictions: Array, targets: Array, *, alpha: float, gamma: float, beta: float) -> Array:
    def slope(error: float) -> float:
        return alpha * log1p(expm1(gamma / alpha) * error / beta)

    def cost(error: float) -> float:
        curve = quad(slope, 0, min(error, beta), epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        return curve + gamma * max(0.0, error - beta)

    return np.vectorize(cost)(np.abs(predictions - targets))
