"""Losses of a margin as plain arithmetic on one number at a time, case by case."""

from collections.abc import Callable
from math import exp
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
SIZES = [({"...": (6, 3)}, {}), ({"...": ()}, {})]


def _each(function: Callable[[float], float], logits: Array, targets: Array) -> Array:
    """Apply a function to the margin of each element."""
    return np.vectorize(function, otypes=[float])(np.where(targets > 0, logits, -logits))


def _edge(gradient: list[float]) -> Edge:
    """Return the margins 1, -1, 0, 1e4 and -1e4 for both signs of the target, with the slopes by margin."""
    margins = [1.0, -1.0, 0.0, 1e4, -1e4]
    return Edge(
        {"logits": [margins, [-m for m in margins]], "targets": [[1] * 5, [-1] * 5]},
        gradients={"logits": [gradient, [-g for g in gradient]]},
    )


@oracles.of(
    "exponential",
    grows=True,
    draws=SIZES,
    edges=[Edge({"logits": [1e4, -700], "targets": [1, 1]}, gradients={"logits": [0, -exp(700)]})],
)
def exponential(logits: Array, targets: Array) -> Array:
    return _each(lambda m: exp(-m), logits, targets)


@oracles.of("hinge", draws=[*SIZES, ({"...": (5,)}, {"margin": 0.3})], edges=[_edge([0, -1, -1, 0, -1])])
def hinge(logits: Array, targets: Array, *, margin: float) -> Array:
    return _each(lambda m: margin - m if m < margin else 0.0, logits, targets)


@oracles.of(
    "squared_hinge",
    draws=[*SIZES, ({"...": (5,)}, {"margin": 0.3})],
    edges=[_edge([0, -4, -2, 0, -20002])],
)
def squared_hinge(logits: Array, targets: Array, *, margin: float) -> Array:
    return _each(lambda m: (margin - m) ** 2 if m < margin else 0.0, logits, targets)


@oracles.of("perceptron", draws=SIZES, edges=[_edge([0, -1, 0, 0, -1])])
def perceptron(logits: Array, targets: Array) -> Array:
    return _each(lambda m: abs(m) if m < 0 else 0.0, logits, targets)


@oracles.of("modified_huber", draws=SIZES, edges=[_edge([0, -4, -2, 0, -4])])
def modified_huber(logits: Array, targets: Array) -> Array:
    return _each(lambda m: -4 * m if m < -1 else max(0.0, 1 - m) ** 2, logits, targets)


@oracles.of("soft_margin", draws=SIZES, edges=[_edge([-1 / (1 + exp(1)), -1 / (1 + exp(-1)), -0.5, 0, -1])])
def soft_margin(logits: Array, targets: Array) -> Array:
    with mpmath.workdps(40):
        return _each(lambda m: float(mpmath.log1p(mpmath.exp(-m))), logits, targets)


@oracles.of("binary_sparsemax", draws=SIZES, edges=[_edge([0, -1, -0.5, 0, -1])])
def binary_sparsemax(logits: Array, targets: Array) -> Array:
    def one(m: float) -> float:
        # the sparsemax loss of the two scores m and 0, half of which the margin is
        if m >= 1:
            return 0.0
        return -m if m <= -1 else (1 - m) ** 2 / 4

    return _each(one, logits, targets)


@oracles.of(
    "multi_margin",
    draws=[
        ({"N": 5, "C": 4}, {"p": 2, "margin": 0.4}),
        ({"N": 5, "C": 2}, {"weight": (0.0, 3.0), "margin": -0.2}),
    ],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [1e4, -1e4], [1.0, 0.0]], "targets": [1, 0, 0]},
            gradients={"logits": [[0.5, -0.5], [0, 0], [0, 0]]},
        ),
        Edge({"logits": [[1.0, 0.0]], "targets": [0]}, {"p": 2}, gradients={"logits": [[0, 0]]}),
    ],
)
def multi_margin(logits: Array, targets: Array, *, p: int, margin: float, weight: Any) -> Array:
    loss = np.zeros(len(targets))
    for i, (scores, y) in enumerate(zip(logits, targets, strict=True)):
        rivals = [max(0.0, margin - scores[y] + z) ** p for j, z in enumerate(scores) if j != y]
        loss[i] = (1.0 if weight is None else weight[y]) * sum(rivals) / len(scores)
    return loss


@oracles.of(
    "categorical_hinge",
    draws=[({"N": 5, "C": 6}, {}), ({"N": 5, "C": 2}, {})],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [1e4, -1e4], [1.0, 0.0], [-3, -2]], "targets": [1, 0, 0, 1]},
            gradients={"logits": [[1, -1], [0, 0], [0, 0], [0, 0]]},
        ),
    ],
)
def categorical_hinge(logits: Array, targets: Array) -> Array:
    pairs = zip(logits, targets, strict=True)
    return np.array([max(0.0, 1 + max(np.delete(scores, y)) - scores[y]) for scores, y in pairs])


@oracles.of(
    "multiclass_perceptron",
    draws=[({"N": 5, "C": 6}, {}), ({"N": 5, "C": 2}, {})],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [1e4, -1e4]], "targets": [1, 0]},
            gradients={"logits": [[1, -1], [0, 0]]},
        ),
        Edge({"logits": [[0.0, 0.0]], "targets": [0]}),
    ],
)
def multiclass_perceptron(logits: Array, targets: Array) -> Array:
    return np.array([sorted(scores)[-1] - scores[y] for scores, y in zip(logits, targets, strict=True)])
