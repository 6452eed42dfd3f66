"""Plain errors by loops over the elements and by numpy's norm."""

import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, elementwise

oracles = Oracles()
SHAPES = [({"...": ()}, {}), ({"...": (3, 1, 2)}, {})]


@oracles.of(
    "mse",
    draws=SHAPES,
    edges=[Edge({"predictions": [1.0, 3.0], "targets": [1.0, 1.0]}, {}, {"predictions": [0, 4]})],
)
def mse(predictions: Array, targets: Array) -> Array:
    return elementwise(lambda p, t: abs(p - t) ** 2, predictions, targets)


@oracles.of(
    "half_mse",
    draws=SHAPES,
    edges=[Edge({"predictions": [1.0, 3.0], "targets": [1.0, 1.0]}, {}, {"predictions": [0, 2]})],
)
def half_mse(predictions: Array, targets: Array) -> Array:
    return elementwise(lambda p, t: abs(p - t) ** 2 / 2, predictions, targets)


@oracles.of(
    "rmse",
    draws=SHAPES,
    edges=[
        # a perfect fit, where the derivative does not exist
        Edge(
            {"predictions": [2.0, -1.0], "targets": [2.0, -1.0]},
            {},
            {"predictions": [0, 0]},
        ),
        Edge({"predictions": 3.0, "targets": 1.0}, {}, {"predictions": 1}),
        # squares of these would overflow and vanish
        Edge({"predictions": [3e200, 0.0], "targets": [0.0, 0.0]}, {}, {"predictions": [0.5**0.5, 0]}),
        Edge({"predictions": [3e-200, 0.0], "targets": [0.0, 0.0]}, {}, {"predictions": [0.5**0.5, 0]}),
    ],
)
def rmse(predictions: Array, targets: Array) -> float:
    scale = max(1.0, np.abs(predictions - targets).max())
    return scale * float(np.linalg.norm(((predictions - targets) / scale).ravel())) / predictions.size**0.5


@oracles.of(
    "l1",
    draws=SHAPES,
    edges=[
        Edge({"predictions": [1.0, 3.0, 0.0], "targets": [1.0, 1.0, 2.0]}, {}, {"predictions": [0, 1, -1]})
    ],
)
def l1(predictions: Array, targets: Array) -> Array:
    return np.maximum(predictions, targets) - np.minimum(predictions, targets)


# exact in binary: below the tube's edge, on it, above it
TUBE = {"predictions": [1.25, 1.5, 2.0, 0.5, 0.0], "targets": [1.0, 1.0, 1.0, 1.0, 1.0]}


@oracles.of(
    "epsilon_insensitive",
    draws=[*SHAPES, ({"...": (9,)}, {"epsilon": 0.7})],
    edges=[
        Edge(TUBE, {"epsilon": 0.5}, {"predictions": [0, 0, 1, 0, -1]}),
        Edge({"predictions": [1.0, 2.0], "targets": [1.0, 1.0]}, {"epsilon": 0.0}, {"predictions": [0, 1]}),
    ],
)
def epsilon_insensitive(predictions: Array, targets: Array, *, epsilon: float) -> Array:
    over, under = predictions - targets - epsilon, targets - predictions - epsilon
    return np.max([over, under, np.zeros_like(over)], axis=0)


@oracles.of(
    "squared_epsilon_insensitive",
    draws=[*SHAPES, ({"...": (9,)}, {"epsilon": 0.7})],
    edges=[
        Edge(TUBE, {"epsilon": 0.5}, {"predictions": [0, 0, 1, 0, -1]}),
        Edge({"predictions": [1.0, 2.0], "targets": [1.0, 1.0]}, {"epsilon": 0.0}, {"predictions": [0, 2]}),
    ],
)
def squared_epsilon_insensitive(predictions: Array, targets: Array, *, epsilon: float) -> Array:
    return epsilon_insensitive(predictions, targets, epsilon=epsilon) ** 2
