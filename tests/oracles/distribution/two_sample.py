"""Distances between sets of samples, pair by pair, and covariances by numpy."""

from math import dist, exp, fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "mmd",
    draws=[
        ({"N": 4, "M": 6, "D": 3}, {"bandwidths": (0.5, 1.0, 4.0)}),
        ({"N": 5, "M": 2, "D": 1}, {"unbiased": True, "bandwidths": (2.0, 0.7)}),
        ({"N": 1, "M": 1, "D": 2}, {}),
    ],
    edges=[
        # the same samples: 0, though every one coincides with another
        Edge(
            {"predictions": [[1.0, 2.0], [1.0, 2.0]], "targets": [[1.0, 2.0], [1.0, 2.0]]},
            gradients={"predictions": [[0, 0], [0, 0]]},
        ),
        # far beyond the bandwidth: no kernel, no gradient
        Edge(
            {"predictions": [[1e4], [-1e4]], "targets": [[0.0], [5e3]]}, gradients={"predictions": [[0], [0]]}
        ),
        # close samples far from the origin, where an expanded square has no digits left
        Edge({"predictions": [[1e8], [1e8 + 1]], "targets": [[1e8 + 2], [1e8 + 3]]}, {"unbiased": True}),
    ],
)
def mmd(predictions: Array, targets: Array, *, bandwidths: tuple[float, ...], unbiased: bool) -> float:
    def similarity(a: Array, b: Array) -> float:
        return fsum(exp(-(dist(a, b) ** 2) / (2 * s**2)) for s in bandwidths) / len(bandwidths)

    def mean_similarity(samples: Array) -> float:
        pairs = [
            similarity(a, b)
            for i, a in enumerate(samples)
            for j, b in enumerate(samples)
            if i != j or not unbiased
        ]
        return fsum(pairs) / len(pairs)

    between = fsum(similarity(a, b) for a in predictions for b in targets) / (len(predictions) * len(targets))
    return mean_similarity(predictions) + mean_similarity(targets) - 2 * between


@oracles.of(
    "energy_distance",
    draws=[({"N": 4, "M": 6, "D": 3}, {}), ({"N": 1, "M": 1, "D": 2}, {}), ({"N": 5, "M": 2, "D": 1}, {})],
    edges=[
        # the same samples: 0 with gradient 0, though every distance that counts is at its kink
        Edge(
            {"predictions": [[1.0, 2.0], [1.0, 2.0]], "targets": [[1.0, 2.0], [1.0, 2.0]]},
            gradients={"predictions": [[0, 0], [0, 0]], "targets": [[0, 0], [0, 0]]},
        ),
        # one coincident pair, one not
        Edge(
            {"predictions": [[0.0, 0.0]], "targets": [[0.0, 0.0], [3.0, 4.0]]},
            gradients={"predictions": [[-0.6, -0.8]]},
        ),
        Edge({"predictions": [[1e8], [1e8 + 1]], "targets": [[1e8 + 2], [1e8 + 3]]}),
    ],
)
def energy_distance(predictions: Array, targets: Array) -> float:
    def mean_distance(first: Array, second: Array) -> float:
        return fsum(dist(a, b) for a in first for b in second) / (len(first) * len(second))

    return (
        2 * mean_distance(predictions, targets)
        - mean_distance(predictions, predictions)
        - mean_distance(targets, targets)
    )


@oracles.of(
    "coral",
    draws=[({"N": 5, "M": 7, "D": 3}, {}), ({"N": 2, "M": 3, "D": 1}, {})],
    edges=[
        # a shift of the mean does not count
        Edge(
            {"predictions": [[1.0, 2.0], [3.0, 5.0]], "targets": [[11.0, 0.0], [13.0, 3.0]]},
            gradients={"predictions": [[0, 0], [0, 0]]},
        ),
        # a constant set has no covariance
        Edge(
            {"predictions": [[1.0, 2.0], [1.0, 2.0]], "targets": [[0.0, 1.0], [2.0, -1.0]]},
            gradients={"predictions": [[0, 0], [0, 0]]},
        ),
    ],
)
def coral(predictions: Array, targets: Array) -> float:
    features = predictions.shape[1]
    gap = np.cov(predictions, rowvar=False) - np.cov(targets, rowvar=False)
    return float(np.linalg.norm(np.atleast_2d(gap), "fro") ** 2 / (4 * features**2))
