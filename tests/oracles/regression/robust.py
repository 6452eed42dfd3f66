"""Convex robust errors: Huber's from scipy, the others from their definitions in many digits."""

import mpmath
import numpy as np
import scipy.special

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, Number, elementwise

oracles = Oracles()
# zero, on both sides of the joint at 1, on it, beyond all squares and below them
RESIDUALS = [0.0, 0.5, 1.0, -1.0, 2.0, -1e4, 1e200, 1e-6, -1e-200]
WIDE = {"predictions": RESIDUALS, "targets": [0.0] * len(RESIDUALS)}


@oracles.of(
    "huber",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {"delta": 0.3})],
    edges=[
        Edge(WIDE, {}, {"predictions": [0, 0.5, 1, -1, 1, -1, 1, 1e-6, -1e-200]}),
        Edge(WIDE, {"delta": 2.5}),
        Edge(WIDE, {"delta": 1e-3}),
    ],
)
def huber(predictions: Array, targets: Array, *, delta: float) -> Array:
    return scipy.special.huber(delta, predictions - targets)


@oracles.of(
    "smooth_l1",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {"beta": 0.3}), ({"...": (4, 5)}, {"beta": 0.0})],
    edges=[
        Edge(WIDE, {}, {"predictions": [0, 0.5, 1, -1, 1, -1, 1, 1e-6, -1e-200]}),
        Edge(WIDE, {"beta": 0.0}, {"predictions": [0, 1, 1, -1, 1, -1, 1, 1, -1]}),
        Edge(WIDE, {"beta": 2.0}, {"predictions": [0, 0.25, 0.5, -0.5, 1, -1, 1, 5e-7, -5e-201]}),
    ],
)
def smooth_l1(predictions: Array, targets: Array, *, beta: float) -> Array:
    residuals = predictions - targets
    return scipy.special.huber(beta, residuals) / beta if beta else np.abs(residuals)


@oracles.of(
    "log_cosh",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {})],
    edges=[
        Edge(WIDE, {}, {"predictions": np.tanh(RESIDUALS).tolist()}),
        # where a literal cosh overflows in float32 and in float64
        Edge({"predictions": [89.0, -711.0], "targets": [0.0, 0.0]}, {}, {"predictions": [1, -1]}),
    ],
)
def log_cosh(predictions: Array, targets: Array) -> Array:
    def formula(p: Number, t: Number) -> Number:
        size = abs(p - t)
        return size - mpmath.log(2) if size > 1e5 else mpmath.log(mpmath.cosh(size))

    return elementwise(formula, predictions, targets)


@oracles.of(
    "pseudo_huber",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {"delta": 0.3})],
    edges=[
        Edge(
            WIDE,
            {},
            {
                "predictions": [
                    0,
                    0.2**0.5,
                    0.5**0.5,
                    -(0.5**0.5),
                    0.8**0.5,
                    -1 + 4.9999999625e-9,
                    1,
                    1e-6,
                    -1e-200,
                ]
            },
        ),
        Edge(WIDE, {"delta": 30.0}),
        Edge(WIDE, {"delta": 1e-3}),
    ],
)
def pseudo_huber(predictions: Array, targets: Array, *, delta: float) -> Array:
    d = mpmath.mpf(delta)
    return elementwise(lambda p, t: d**2 * (mpmath.sqrt(1 + ((p - t) / d) ** 2) - 1), predictions, targets)
