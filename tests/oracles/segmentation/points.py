"""Losses at sampled points, with bilinear interpolation by hand."""

from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

DRAWS: list[Any] = [({"N": 3, "H": 6, "W": 5, "P": 9}, {}), ({"N": 2, "H": 1, "W": 1, "P": 3}, {})]
PLANE = [[[2, -1, 0], [1, 3, -2], [0.5, -1, -3]]]
TRUTH = [[[1, 0, 0], [1, 1, 0], [1, 0, 0]]]
EDGES = [
    # corners, and a pixel's centre
    Edge({"logits": PLANE, "targets": TRUTH, "points": [[[0, 0], [1, 1], [0, 1], [0.5, 0.5]]]}),
    Edge({"logits": [[[1e4, -1e4]]], "targets": [[[0, 1]]], "points": [[[0.25, 0.5], [0.75, 0.5]]]}),
]


def sampled(maps: Array, points: Array) -> Array:
    """Interpolate between pixel centres, with zeros beyond the image."""
    values = np.zeros(points.shape[:2])
    _, height, width = maps.shape
    for n, k in np.ndindex(*points.shape[:2]):
        x, y = points[n, k, 0] * width - 0.5, points[n, k, 1] * height - 0.5
        for i in (floor(y), floor(y) + 1):
            for j in (floor(x), floor(x) + 1):
                if 0 <= i < height and 0 <= j < width:
                    values[n, k] += maps[n, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return values


@oracles.of("point_mask_bce", draws=DRAWS, edges=EDGES)
def point_mask_bce(logits: Array, targets: Array, points: Array) -> Array:
    z, y = sampled(logits, points), sampled(targets, points)
    return -y * log_expit(z) - (1 - y) * log_expit(-z)


@oracles.of("point_mask_dice", draws=[*DRAWS, ({}, {"smooth": 0.2})], edges=EDGES)
def point_mask_dice(logits: Array, targets: Array, points: Array, *, smooth: float) -> Array:
    p, y = expit(sampled(logits, points)), sampled(targets, points)
    return 1 - (2 * (p * y).sum(1) + smooth) / (p.sum(1) + y.sum(1) + smooth)
