"""Overlaps by their other definitions: the affinity of two distributions, the most telling event."""

from itertools import product
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "squared_hellinger",
    draws=[({"...": (), "C": 6}, {}), ({"...": (2, 3), "C": 2}, {})],
    edges=[
        # disjoint is 1; the slope is infinite towards an outcome that the prediction misses
        Edge(
            {"probabilities": [[1.0, 0.0, 0.0]], "targets": [[0.0, 1.0, 0.0]]},
            gradients={"probabilities": [[0.5, -inf, 0.5]]},
        ),
        Edge(
            {"probabilities": [[0.3, 0.7, 0.0]], "targets": [[0.3, 0.7, 0.0]]},
            gradients={"probabilities": [[0, 0, 0.5]]},
        ),
    ],
)
def squared_hellinger(probabilities: Array, targets: Array) -> Array:
    return (probabilities.sum(-1) + targets.sum(-1)) / 2 - _affinity(probabilities, targets)


@oracles.of(
    "bhattacharyya",
    draws=[({"...": (), "C": 6}, {}), ({"...": (2, 3), "C": 2}, {})],
    edges=[
        # outcomes that the target, or both, give no probability have no pull
        Edge(
            {"probabilities": [[0.25, 0.75, 0.0]], "targets": [[1.0, 0.0, 0.0]]},
            gradients={"probabilities": [[-2, 0, 0]], "targets": [[-0.5, -inf, 0]]},
        ),
        Edge(
            {"probabilities": [[0.5, 0.5]], "targets": [[0.5, 0.5]]},
            gradients={"probabilities": [[-0.5, -0.5]]},
        ),
        # disjoint is infinite
        Edge({"probabilities": [[1.0, 0.0]], "targets": [[0.0, 1.0]]}),
    ],
)
def bhattacharyya(probabilities: Array, targets: Array) -> Array:
    with np.errstate(divide="ignore"):
        return -np.log(_affinity(probabilities, targets))


def _affinity(probabilities: Array, targets: Array) -> Array:
    """Return the sum of the geometric means, outcome by outcome."""
    sides = zip(np.moveaxis(probabilities, -1, 0), np.moveaxis(targets, -1, 0), strict=True)
    return sum((np.vectorize(sqrt)(p * t) for p, t in sides), start=np.zeros(probabilities.shape[:-1]))


@oracles.of(
    "total_variation_distance",
    draws=[({"...": (), "C": 6}, {}), ({"...": (2, 3), "C": 2}, {})],
    edges=[
        Edge(
            {"probabilities": [[0.25, 0.75], [1.0, 0.0]], "targets": [[0.25, 0.75], [0.0, 1.0]]},
            gradients={"probabilities": [[0, 0], [0.5, -0.5]]},
        ),
    ],
)
def total_variation_distance(probabilities: Array, targets: Array) -> Array:
    events = np.array(list(product([0, 1], repeat=probabilities.shape[-1])))
    return np.abs((probabilities - targets) @ events.T).max(-1)
