"""Depth losses pixel by pixel, in the arithmetic of the papers."""

import math
from typing import Any

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "silog",
    draws=[
        ({"N": 3, "...": (2, 3)}, {"variance_focus": 1.0}),
        ({"N": 3, "...": (1, 2, 3)}, {"variance_focus": 0.0}),
        ({"N": 4, "...": ()}, {"variance_focus": 0.85}),
        ({"N": 2, "...": (5,)}, {"eps": 1.0}),
    ],
    edges=[
        # invalid pixels; the second map has no others
        Edge(
            {"predictions": [[1, 2, 3], [1, 2, 3]], "targets": [[2, 0, 3.5], [0, 0, 1e-6]]},
            gradients={"predictions": [[np.nan, 0, np.nan], [0, 0, 0]]},
        ),
        # a perfect map costs eps, with gradient 0
        Edge({"predictions": [[1, 2]], "targets": [[1, 2]]}, gradients={"predictions": [[0, 0]]}),
        # a wrong scale alone is forgiven wholly
        Edge(
            {"predictions": [[1, 2, 4]], "targets": [[2, 4, 8]]},
            {"variance_focus": 1.0},
            {"predictions": [[0, 0, 0]]},
        ),
        # a prediction below eps is held at it
        Edge({"predictions": [[1e-9, 2]], "targets": [[1, 2]]}, gradients={"predictions": [[0, np.nan]]}),
        Edge({"predictions": [[1e4, 1e-4]], "targets": [[1e-4, 1e4]]}),
    ],
)
def silog(predictions: Array, targets: Array, *, variance_focus: float, eps: float) -> list[float]:
    losses: list[float] = []
    with mp.workdps(40):
        for p_map, t_map in zip(predictions, targets, strict=True):
            pairs = zip(np.ravel(p_map), np.ravel(t_map), strict=True)
            g = [mp.log(mpf(t)) - mp.log(max(mpf(p), mpf(eps))) for p, t in pairs if t > eps]
            if g:
                mean, square = mp.fsum(g) / len(g), mp.fsum(x * x for x in g) / len(g)
                losses.append(float(mp.sqrt(max(square - mpf(variance_focus) * mean**2, mpf(eps) ** 2))))
            else:
                losses.append(0.0)
    return losses


@oracles.of(
    "inverse_depth_smoothness",
    draws=[({"N": 3, "C": 1, "H": 2, "W": 5}, {}), ({"N": 1, "C": 4, "H": 6, "W": 2}, {})],
    edges=[
        Edge(
            {"predictions": [[[[0.5, 0.5], [0.5, 0.5]]]], "images": [[[[0, 1], [2, 3]]]]},
            gradients={"predictions": [[[[0, 0], [0, 0]]]]},
        ),
        # an edge so strong that any jump is excused
        Edge({"predictions": [[[[1, 2], [3, 4]]]], "images": [[[[0, 1e4], [-1e4, 0]]]]}),
    ],
)
def inverse_depth_smoothness(predictions: Array, images: Array) -> list[float]:
    losses: list[float] = []
    for (depth,), image in zip(predictions, images, strict=True):
        height, width = depth.shape
        total = 0.0
        for down, right in ((0, 1), (1, 0)):
            places = [(i, j) for i in range(height - down) for j in range(width - right)]
            terms = [
                abs(depth[i + down, j + right] - depth[i, j])
                / math.exp(np.mean([abs(c[i + down, j + right] - c[i, j]) for c in image]))
                if np.mean([abs(c[i + down, j + right] - c[i, j]) for c in image]) < 700
                else 0.0
                for i, j in places
            ]
            total += math.fsum(terms) / len(places)
        losses.append(total)
    return losses
