"""Losses of probabilities, class by class and outcome by outcome."""

from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "categorical_cross_entropy",
    draws=[({"N": 4, "C": 5, "...": (2, 3)}, {}), ({"N": 6, "C": 3, "...": ()}, {"eps": 0.3})],
    edges=[
        Edge(
            {"probabilities": [[1.0, 0.0], [1.0, 0.0]], "targets": [0, 1]},
            gradients={"probabilities": [[0, 0], [0, 0]]},
        ),
        Edge({"probabilities": [[1.0, 0.0]], "targets": [[0.5, 0.5]]}, gradients={"probabilities": [[0, 0]]}),
    ],
)
def categorical_cross_entropy(probabilities: Array, targets: Array, *, eps: float) -> Array:
    classes = np.moveaxis(probabilities, 1, -1)
    hot = np.eye(classes.shape[-1])[targets] if targets.dtype.kind == "i" else np.moveaxis(targets, 1, -1)
    loss = np.zeros(classes.shape[:-1])
    for place in np.ndindex(*classes.shape):
        p = min(max(classes[place], eps), 1 - eps)
        loss[place[:-1]] += hot[place] * log(1 / p)
    return loss


@oracles.of(
    "binary_cross_entropy",
    tolerance=1e-12,
    draws=[
        ({"...": (4, 3)}, {}),
        ({"...": ()}, {}),
        ({"...": (4, 3)}, {"label_smoothing": 0.1}),
        ({"...": (4, 3)}, {"label_smoothing": 1.0}),
    ],
    edges=[
        Edge(
            {"probabilities": [0.0, 1.0, 0.0, 1.0], "targets": [1, 0, 0, 1]},
            gradients={"probabilities": [-1e12, 1e12, 0, 0]},
        ),
        Edge(
            {"probabilities": [0.0, 1.0, 0.5, 0.75], "targets": [0, 1, 1, 1]},
            {"label_smoothing": 0.5},
            {"probabilities": [-0.25e12, 0.25e12, -1, 0]},
        ),
        Edge(
            {"probabilities": [1e-50, 1e-30, 0.25], "targets": [1, 0, 0.25]},
            gradients={"probabilities": [-1e12, 1e-18, 0]},
        ),
    ],
)
def binary_cross_entropy(probabilities: Array, targets: Array, *, label_smoothing: float) -> Array:
    def one(p: float, t: float) -> float:
        yes = max(log(p), -100.0) if p > 0 else -100.0
        no = max(log(1 - p), -100.0) if p < 1 else -100.0
        # a share of the questions is answered at random
        return (1 - label_smoothing) * (-t * yes - (1 - t) * no) - label_smoothing * (yes + no) / 2

    return np.vectorize(one, otypes=[float])(probabilities, targets)


@oracles.of(
    "brier",
    draws=[({"N": 4, "C": 5, "...": (2, 3)}, {}), ({"N": 6, "C": 2, "...": ()}, {})],
    edges=[
        Edge(
            {"probabilities": [[1.0, 0.0], [1.0, 0.0]], "targets": [0, 1]},
            gradients={"probabilities": [[0, 0], [2, -2]]},
        ),
    ],
)
def brier(probabilities: Array, targets: Array) -> Array:
    # |p|^2 - 2 p_y + 1, the square of the difference multiplied out
    p = np.moveaxis(probabilities, 1, -1)
    true = np.take_along_axis(p, targets[..., None], -1)[..., 0]
    return (p**2).sum(-1) - 2 * true + 1
