"""Sparse losses from their threshold, found by bisection, and their definition in high precision."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
DRAWS = [({"N": 5, "C": 2}, {}), ({"N": 4, "C": 9}, {}), ({"N": 1, "C": 40}, {})]


def _edges(lead: float) -> list[Edge]:
    """Return saturated logits, a lead at which the loss becomes zero, ties, and an impossible class."""
    return [
        Edge(
            {"logits": [[1e4, -1e4, 0], [1e4, -1e4, 0]], "targets": [0, 1]},
            gradients={"logits": [[0, 0, 0], [1, -1, 0]]},
        ),
        Edge({"logits": [[lead, 0, 0]], "targets": [0]}, gradients={"logits": [[0, 0, 0]]}),
        Edge(
            {"logits": [[1e4] * 4, [-1e4] * 4], "targets": [0, 3]},
            gradients={"logits": [[-0.75, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, -0.75]]},
        ),
        Edge(
            {"logits": [[0.0, 0.0, -1e4]], "targets": [2]},
            gradients={"logits": [[0.5, 0.5, -1]]},
        ),
    ]


@oracles.of("sparsemax", draws=DRAWS, edges=_edges(1))
def sparsemax(logits: Array, targets: Array) -> Array:
    def one(z: list[Any], y: int) -> float:
        tau = _root(lambda tau: sum(max(v - tau, 0) for v in z) - 1, max(z) - 1, max(z))
        return float(-z[y] + mpf(1) / 2 + sum(v**2 - tau**2 for v in z if v > tau) / 2)

    return _rows(one, logits, targets)


@oracles.of("entmax15", draws=DRAWS, edges=_edges(2))
def entmax15(logits: Array, targets: Array) -> Array:
    def one(z: list[Any], y: int) -> float:
        half = [v / 2 for v in z]
        tau = _root(lambda tau: sum(max(v - tau, 0) ** 2 for v in half) - 1, max(half) - 1, max(half))
        q = [max(v - tau, 0) ** 2 for v in half]
        entropy = (1 - sum(v ** mpf(1.5) for v in q)) / mpf(0.75)
        return float(entropy + sum(a * b for a, b in zip(q, z, strict=True)) - z[y])

    return _rows(one, logits, targets)


def _rows(one: Callable[[list[Any], int], float], logits: Array, targets: Array) -> Array:
    """Apply a function to each row of logits, in 40 digits, and its target."""
    with mpmath.workdps(40):
        rows = zip(logits, targets, strict=True)
        return np.array([one([mpf(float(v)) for v in scores], int(y)) for scores, y in rows])


def _root(falling: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """Return where a falling function crosses zero, by bisection."""
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
