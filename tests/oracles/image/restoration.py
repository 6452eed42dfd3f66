"""Pixels one by one, and the spectrum by the matrix of the discrete Fourier transform."""

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

ZEROS = np.zeros((1, 1, 3, 4)).tolist()
ONES = np.ones((1, 1, 3, 4)).tolist()


@oracles.of(
    "psnr",
    draws=[({"N": 4, "C": 1, "H": 5, "W": 2}, {"data_range": 255.0}), ({"N": 3}, {"eps": 0.3})],
    edges=[
        # identical images: -80 dB
        Edge({"predictions": ONES, "targets": ONES}, gradients={"predictions": ZEROS}),
        Edge({"predictions": ONES, "targets": ZEROS}, {"data_range": 1e-3}),
        Edge({"predictions": [[[[1e4]]]], "targets": [[[[-1e4]]]]}),
    ],
)
def psnr(predictions: Array, targets: Array, *, data_range: float, eps: float) -> list[float]:
    losses: list[float] = []
    for p, t in zip(predictions, targets, strict=True):
        mse = math.fsum((p - t).ravel() ** 2) / p.size
        losses.append(10 * math.log(mse / data_range**2 + eps) / math.log(10))
    return losses


@oracles.of(
    "total_variation",
    draws=[
        ({"N": 3, "C": 2, "H": 2, "W": 5}, {"pixel_reduction": "mean", "norm": "l2"}),
        ({"N": 1, "C": 2, "H": 5, "W": 2}, {"pixel_reduction": "mean", "norm": "l2_squared"}),
        ({"N": 1, "C": 1, "H": 2, "W": 2}, {"norm": "l2", "eps": 0.5}),
    ],
    edges=[
        # a flat image has no slope, whichever the norm
        *(
            Edge({"predictions": ONES}, {"norm": n}, {"predictions": ZEROS})
            for n in ("l1", "l2", "l2_squared")
        ),
        Edge({"predictions": [[[[1e4, -1e4], [-1e4, 1e4]]]]}, {"norm": "l2_squared"}),
        # differences of 0 beside others
        Edge({"predictions": [[[[1, 1], [1, 3]]]]}, gradients={"predictions": [[[[0, -1], [-1, 2]]]]}),
    ],
)
def total_variation(predictions: Array, *, norm: str, pixel_reduction: str, eps: float) -> list[float]:
    losses: list[float] = []
    for image in predictions:
        x_map: list[float] = []
        y_map: list[float] = []
        both: list[float] = []
        for plane, (i, j) in product(image, np.ndindex(*image.shape[1:])):
            right, below = j + 1 < plane.shape[1], i + 1 < plane.shape[0]
            dx = plane[i, j + 1] - plane[i, j] if right else None
            dy = plane[i + 1, j] - plane[i, j] if below else None
            x_map += [] if dx is None else [abs(dx) if norm == "l1" else dx * dx]
            y_map += [] if dy is None else [abs(dy) if norm == "l1" else dy * dy]
            both += [] if dx is None or dy is None else [math.hypot(dx, dy, math.sqrt(eps))]
        kept = [both] if norm == "l2" else [x_map, y_map]
        losses.append(sum(math.fsum(m) / (len(m) if pixel_reduction == "mean" else 1) for m in kept))
    return losses


@oracles.of(
    "charbonnier",
    draws=[({"...": ()}, {"eps": 1.0}), ({"...": (2, 3, 4)}, {"eps": 1e-6})],
    edges=[
        Edge({"predictions": [0.5, 2.0], "targets": [0.5, 2.0]}, gradients={"predictions": [0, 0]}),
        Edge(
            {"predictions": [1e4, -1e4, 1e-3], "targets": [-1e4, 1e4, 0]},
            gradients={"predictions": [1, -1, math.sqrt(0.5)]},
        ),
    ],
)
def charbonnier(predictions: Array, targets: Array, *, eps: float) -> Array:
    # the length of the complex number whose parts are the error and eps
    return np.abs(predictions - targets + 1j * eps)


@oracles.of(
    "focal_frequency",
    draws=[
        ({"N": 2, "C": 2, "H": 3, "W": 5}, {"alpha": 2.5}),
        ({"N": 1, "C": 1, "H": 1, "W": 6}, {"alpha": 0.0}),
        ({"N": 2, "C": 1, "H": 7, "W": 1}, {"alpha": 0.5}),
    ],
    edges=[
        # equal images: the weights are 0 over 0, taken as 0
        *(
            Edge({"predictions": ONES, "targets": ONES}, {"alpha": a}, {"predictions": ZEROS})
            for a in (0.0, 1.0, 2.0)
        ),
        # a constant offset has one frequency: its weight is 1, its gradient that of the squared error
        Edge(
            {"predictions": ONES, "targets": ZEROS},
            gradients={"predictions": (2 * np.array(ONES)).tolist()},
        ),
        # one of two channels equal
        Edge({"predictions": [[[[0.2, 0.7]], [[0.1, 0.4]]]], "targets": [[[[0.9, 0.3]], [[0.1, 0.4]]]]}),
        Edge({"predictions": [[[[1e4, -1e4]]]], "targets": [[[[0.0, 1.0]]]]}),
    ],
)
def focal_frequency(predictions: Array, targets: Array, *, alpha: float) -> Array:
    def spectrum(x: Array) -> Array:
        rows, columns = (
            np.exp(-2j * np.pi * np.outer(k, k) / n) for n in x.shape[2:] for k in [np.arange(n)]
        )
        return rows @ x @ columns / math.sqrt(x.shape[2] * x.shape[3])

    distance = np.abs(spectrum(predictions) - spectrum(targets))
    weight = np.zeros_like(distance)
    for n, c in np.ndindex(*distance.shape[:2]):
        powers = distance[n, c] ** alpha
        weight[n, c] = powers / powers.max() if powers.max() > 0 else 0
    return weight * distance**2
