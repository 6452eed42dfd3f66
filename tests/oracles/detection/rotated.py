"""Losses of rotated boxes from covariance matrices: inverses, determinants and matrix roots."""

from math import cos, exp, log, log1p, pi, sin, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import det, inv, sqrtm

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

BOX = [1.0, 2.0, 6.0, 3.0, 0.4]
FIT = Edge({"boxes": [BOX], "targets": [BOX]})
SAME = [  # the same box by other numbers: half a turn, a quarter turn with the sides swapped
    Edge({"boxes": [[1.0, 2.0, 6.0, 3.0, 0.4 + turn]], "targets": [[0.0, 1.0, 5.0, 4.0, -0.3]]})
    for turn in (pi, -pi, 8 * pi)
] + [Edge({"boxes": [[1.0, 2.0, 3.0, 6.0, 0.4 + pi / 2]], "targets": [[0.0, 1.0, 5.0, 4.0, -0.3]]})]
SQUARE = {"boxes": [[1.0, 2.0, 4.0, 4.0, 0.4]], "targets": [[0.0, 1.0, 5.0, 3.0, -0.3]]}
NO_TURN = {"boxes": [[np.nan, np.nan, np.nan, np.nan, 0]]}
APART = Edge({"boxes": [[0.0, 0.0, 2.0, 1.0, 0.3]], "targets": [[500.0, 300.0, 2.0, 3.0, 1.0]]})
THIN = Edge({"boxes": [[0.0, 0.0, 40.0, 0.5, 0.3]], "targets": [[1.0, 0.0, 30.0, 0.4, 0.2]]})
EDGES = [FIT, *SAME, APART, THIN]
MAPS = [
    ({"...": (4,)}, {"fun": f, "tau": t, "alpha": a}) for f, t, a in (("none", 1.0, 2.0), ("sqrt", 2.0, 0.5))
]


@oracles.of(
    "rotated_kld",
    draws=[*MAPS, ({"...": (2, 2)}, {"direction": "jeffreys", "fun": "none"}), ({"...": ()}, {})],
    edges=[*EDGES, Edge(SQUARE, {}, NO_TURN), Edge(FIT.inputs, {"fun": "sqrt"}, {"boxes": [[0] * 5]})],
)
def rotated_kld(boxes: Array, targets: Array, *, direction: str, fun: str, tau: float, alpha: float) -> Array:
    def divergence(p: Array, t: Array) -> float:
        (mean, cov), (true_mean, true_cov) = gaussian(p), gaussian(t)
        offset = (mean - true_mean) / alpha
        trace = np.trace(inv(true_cov) @ cov)
        return (offset @ inv(true_cov) @ offset + trace + log(det(true_cov) / det(cov)) - 2) / 2

    def distance(p: Array, t: Array) -> float:
        there, back = divergence(p, t), divergence(t, p)
        return {
            "prediction_to_target": there,
            "target_to_prediction": back,
            "jeffreys": (there + back) / 2,
            "max": max(there, back),
            "min": min(there, back),
        }[direction]

    return each_pair(boxes, targets, lambda p, t: mapped(distance(p, t), fun, tau))


@oracles.of(
    "rotated_gwd",
    draws=[*MAPS, ({"...": (2, 2)}, {"normalize": True, "fun": "sqrt"}), ({"...": ()}, {})],
    edges=[
        *EDGES,
        Edge(SQUARE, {}, NO_TURN),
        Edge(FIT.inputs, {}, {"boxes": [[0] * 5]}),
        Edge(FIT.inputs, {"fun": "sqrt"}, {"boxes": [[0] * 5]}),
        Edge(FIT.inputs, {"normalize": True}),
    ],
    # the root of the rounding error of a difference, under fun = sqrt
    tolerance=2e-7,
)
def rotated_gwd(
    boxes: Array, targets: Array, *, normalize: bool, fun: str, tau: float, alpha: float
) -> Array:
    def cost(p: Array, t: Array) -> float:
        (mean, cov), (true_mean, true_cov) = gaussian(p), gaussian(t)
        root = sqrtm(cov)
        shapes = float(np.trace(cov + true_cov - 2 * sqrtm(root @ true_cov @ root)))
        squared = ((mean - true_mean) ** 2).sum() + alpha**2 * shapes
        if normalize:
            # the difference of the traces is negative where rounding says so
            squared = sqrt(max(squared, 0.0)) / (2 * (det(cov) * det(true_cov)) ** 0.125)
        return mapped(squared, fun, tau)

    return each_pair(boxes, targets, cost)


@oracles.of(
    "probiou",
    draws=[({"...": (4,)}, {"eps": 0.01}), ({"...": ()}, {"mode": "l2"})],
    edges=[
        *EDGES,
        Edge(SQUARE, {}, NO_TURN),
        Edge(FIT.inputs, {"mode": "l2"}),
        Edge(APART.inputs, {"mode": "l2"}, {"boxes": [[0] * 5]}),
    ],
)
def probiou(boxes: Array, targets: Array, *, mode: str, eps: float) -> Array:
    def cost(p: Array, t: Array) -> float:
        (mean, cov), (true_mean, true_cov) = gaussian(p, 12), gaussian(t, 12)
        total, offset = cov + true_cov, mean - true_mean
        form = float(offset @ inv(total) @ offset) / 4
        shapes = log(det(total) / (4 * sqrt(det(cov) * det(true_cov))) + eps) / 2
        distance = min(max(form + shapes, eps), 100.0)
        return distance if mode == "l2" else sqrt(1 - exp(-distance) + eps)

    return each_pair(boxes, targets, cost)


@oracles.of("kfiou", draws=[({"...": (4,)}, {"eps": 0.1}), ({"...": ()}, {"fun": "ln"})], edges=EDGES)
def kfiou(boxes: Array, targets: Array, *, fun: str, eps: float) -> Array:
    def cost(p: Array, t: Array) -> float:
        cov, true_cov = gaussian(p)[1], gaussian(t)[1]
        product = cov @ inv(cov + true_cov) @ true_cov
        first, second, shared = (4 * sqrt(det(matrix)) for matrix in (cov, true_cov, product))
        share = shared / (first + second - shared + eps)
        return {"none": 1 - share, "ln": -log(share + eps), "exp": exp(1 - share) - 1}[fun]

    return each_pair(boxes, targets, cost)


def gaussian(box: Array, k: int = 4) -> tuple[Array, Array]:
    """Return the mean and the covariance matrix of a rotated box."""
    x, y, width, height, angle = (float(number) for number in box)
    rotation = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    return np.array([x, y]), rotation @ np.diag([width**2 / k, height**2 / k]) @ rotation.T


def each_pair(boxes: Array, targets: Array, cost: Any) -> Array:
    """Return the cost of every pair."""
    rows = zip(boxes.reshape(-1, 5), targets.reshape(-1, 5), strict=True)
    return np.array([cost(p, t) for p, t in rows]).reshape(boxes.shape[:-1])


def mapped(distance: float, fun: str, tau: float) -> float:
    """Map a distance as the papers do."""
    if fun == "none":
        return distance
    return 1 - 1 / (tau + (log1p(max(distance, 0.0)) if fun == "log1p" else sqrt(max(distance, 0.0))))
