"""Losses of counts from their definitions in many digits, deviances beside the powers that are limits."""

import mpmath
import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, Number, elementwise

oracles = Oracles()


@oracles.of(
    "poisson_nll",
    grows=True,
    draws=[
        ({"...": ()}, {"full": True}),
        ({"...": (4, 5)}, {"log_input": False, "full": True}),
        ({"...": (4, 5)}, {"log_input": False, "eps": 0.5}),
    ],
    edges=[
        # Stirling's term only above 1, and finite gradients of the targets where it is left out
        Edge(
            {"predictions": [0.0, 0.0, 0.0, -1e4], "targets": [0.0, 1.0, 2.0, 3.0]},
            {"full": True},
            {"predictions": [1, 0, -1, -3]},
        ),
        Edge(
            {"predictions": [0.0, 0.0, 2.0], "targets": [0.0, 2.0, 4.0]},
            {"log_input": False, "eps": 0.5},
            {"predictions": [1, -3, 1 - 4 / 2.5]},
        ),
    ],
)
def poisson_nll(predictions: Array, targets: Array, *, log_input: bool, full: bool, eps: float) -> Array:
    def formula(p: Number, t: Number) -> Number:
        rate = mpmath.exp(p) if log_input else p
        log_rate = mpmath.log(rate if log_input else rate + mpmath.mpf(eps))
        constant = mpmath.log(mpmath.sqrt(2 * mpmath.pi * t) * (t / mpmath.e) ** t) if full and t > 1 else 0
        return rate - t * log_rate + constant

    return elementwise(formula, predictions, targets)


COUNTS = [
    (p, d, t) for p in (1e-6, 1.0, 1e5) for d in (1e-6, 0.3, 15.9, 16.1, 1e7) for t in (0.0, 1.0, 37.0, 1e6)
]
EXTREME = [
    (1e10, 1e10, 1e10 + 1e5),
    (3.0, 1e12, 4.0),
    (3.0, 1e15, 0.0),
    (1e15, 2.0, 1e15),
    (1.0, 1.0, 1e10),
    (1e10, 1.0, 0.0),
]


def _columns(rows: list[tuple[float, float, float]]) -> dict[str, list[float]]:
    return dict(
        zip(("predictions", "dispersions", "targets"), map(list, zip(*rows, strict=True)), strict=True)
    )


@oracles.of(
    "negative_binomial_nll",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {})],
    edges=[
        Edge(_columns(COUNTS)),
        *[Edge(_columns([row])) for row in EXTREME],
        # the mean itself has no slope towards the mean; no count at all has a simple one
        Edge(
            _columns([(5.0, 2.0, 5.0), (3.0, 2.0, 0.0), (4.0, 1e15, 6.0)]),
            {},
            {"predictions": [0, 2 / 5, -0.5], "dispersions": [np.nan, np.log(5 / 2) - 3 / 5, 0]},
        ),
    ],
)
def negative_binomial_nll(predictions: Array, dispersions: Array, targets: Array) -> Array:
    def formula(p: Number, d: Number, t: Number) -> Number:
        choices = mpmath.loggamma(t + d) - mpmath.loggamma(t + 1) - mpmath.loggamma(d)
        return -(choices + d * mpmath.log(d / (d + p)) + t * mpmath.log(p / (d + p)))

    return elementwise(formula, predictions, dispersions, targets)


POWERS = (0.0, 1.0, 1.2, 1.9, 2.0, 2.5, 3.0, 1 + 1e-9, 2 - 1e-9, 2 + 1e-9)
AMOUNTS = {"predictions": [1.0, 1.0, 1.0, 0.5, 30.0, 1e-6], "targets": [1.0, 1.0 + 1e-7, 3.0, 1e5, 1e-5, 1.0]}


@oracles.of(
    "tweedie_deviance",
    draws=[({"...": ()}, {}), *[({"...": (4, 5)}, {"power": power}) for power in POWERS]],
    edges=[
        *[Edge(AMOUNTS, {"power": power}) for power in POWERS if power < 2.1],
        # no amount: 0 ln 0 is 0, with a finite gradient
        *[
            Edge({"predictions": [2.0], "targets": [0.0]}, {"power": k}, {"predictions": [2 * 2 ** (1 - k)]})
            for k in (1.0, 1.5, 1 + 1e-9, 2 - 1e-9)
        ],
        # a perfect fit costs nothing and has no slope
        *[Edge({"predictions": [3.0], "targets": [3.0]}, {"power": k}, {"predictions": [0]}) for k in POWERS],
        Edge({"predictions": [-3.0, 1.0], "targets": [2.0, -1.0]}, {"power": 0.0}, {"predictions": [-10, 4]}),
        Edge(
            {"predictions": [4.0], "targets": [1.0]}, {"power": 2.0}, {"predictions": [2 * (1 / 4 - 1 / 16)]}
        ),
    ],
)
def tweedie_deviance(predictions: Array, targets: Array, *, power: float) -> Array:
    def formula(p: Number, t: Number) -> Number:
        # a hair beside the limits at 1 and 2 the general formula stands for them
        k = mpmath.mpf(power) + (mpmath.mpf("1e-40") if power else 0)
        first = t ** (2 - k) / ((1 - k) * (2 - k)) if t else 0
        return 2 * (first - t * p ** (1 - k) / (1 - k) + p ** (2 - k) / (2 - k))

    return elementwise(formula, predictions, targets)
