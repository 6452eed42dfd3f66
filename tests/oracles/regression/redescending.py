"""Redescending errors from their definitions in many digits, their limits from points beside them."""

import mpmath

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, Number, elementwise

oracles = Oracles()
RESIDUALS = [0.0, 1e-6, -0.5, 1.0, -2.0, 3.0, 1e4, -1e30, 1e140, 1e-200]
WIDE = {"predictions": RESIDUALS, "targets": [0.0] * len(RESIDUALS)}
HUGE = {"predictions": [1e200, -1e200], "targets": [0.0, 0.0]}
DRAWS = [({"...": ()}, {}), ({"...": (4, 5)}, {"c": 0.3}), ({"...": (4, 5)}, {"c": 7.0})]


@oracles.of(
    "cauchy",
    draws=DRAWS,
    edges=[
        Edge(WIDE, {}, {"predictions": [r / (1 + r * r / 2) for r in RESIDUALS]}),
        Edge(HUGE, {}, {"predictions": [0, 0]}),
    ],
)
def cauchy(predictions: Array, targets: Array, *, c: float) -> Array:
    return elementwise(lambda p, t: mpmath.log(1 + ((p - t) / mpmath.mpf(c)) ** 2 / 2), predictions, targets)


@oracles.of(
    "geman_mcclure",
    draws=DRAWS,
    edges=[
        Edge(
            WIDE, {}, {"predictions": [16 * r / (r * r + 4) ** 2 if abs(r) < 1e50 else 0 for r in RESIDUALS]}
        ),
        Edge(HUGE, {}, {"predictions": [0, 0]}),
    ],
)
def geman_mcclure(predictions: Array, targets: Array, *, c: float) -> Array:
    return elementwise(lambda p, t: 2 - 8 / (((p - t) / mpmath.mpf(c)) ** 2 + 4), predictions, targets)


@oracles.of(
    "welsch",
    draws=DRAWS,
    edges=[
        Edge(WIDE, {}, {"predictions": [r * float(mpmath.exp(-r * r / 2)) for r in RESIDUALS]}),
        Edge(HUGE, {}, {"predictions": [0, 0]}),
    ],
)
def welsch(predictions: Array, targets: Array, *, c: float) -> Array:
    return elementwise(
        lambda p, t: 1 - mpmath.exp(-(((p - t) / mpmath.mpf(c)) ** 2) / 2), predictions, targets
    )


@oracles.of(
    "tukey_biweight",
    draws=DRAWS,
    edges=[
        Edge(WIDE, {}),
        Edge(HUGE, {}, {"predictions": [0, 0]}),
        # on the edge and around it
        Edge(
            {"predictions": [2.0, -2.0, 1.0, 2.5], "targets": [0.0] * 4},
            {"c": 2.0},
            {"predictions": [0, 0, 0.5625, 0]},
        ),
    ],
)
def tukey_biweight(predictions: Array, targets: Array, *, c: float) -> Array:
    def formula(p: Number, t: Number) -> Number:
        bound = mpmath.mpf(c)
        share = (p - t) / bound
        return bound**2 / 6 * (1 - (1 - share**2) ** 3 if abs(share) <= 1 else 1)

    return elementwise(formula, predictions, targets)


ALPHAS = (1, 0, -2, 2, 1.5, 2.5, 1e-6, -1e-6, 1e-30, 2 - 1e-9, 2 + 1e-9, 2 - 2**-52, -1e3, -1e9, -1e300)
MODERATE = {"predictions": [0.0, 1e-6, -0.5, 1.0, 3.0, -20.0, 1e4], "targets": [0.0] * 7}


@oracles.of(
    "general_robust",
    draws=[({"...": (4, 5)}, {"alpha": alpha, "c": 0.7}) for alpha in ALPHAS],
    edges=[
        *[Edge(MODERATE, {"alpha": alpha}) for alpha in ALPHAS],
        *[Edge(WIDE, {"alpha": alpha}) for alpha in (1, 0, 0.5, 1e-6, -2, 2 - 1e-9, -1e300)],
        Edge(HUGE, {"alpha": 1}, {"predictions": [1, -1]}),
        Edge({"predictions": [3.0, 0.0], "targets": [0.0, 0.0]}, {"alpha": 2}, {"predictions": [3, 0]}),
        Edge(
            {"predictions": [3.0, 0.0], "targets": [0.0, 0.0]}, {"alpha": 2 - 1e-12}, {"predictions": [3, 0]}
        ),
        Edge({"predictions": [3.0, 0.0], "targets": [0.0, 0.0]}, {"alpha": 0}, {"predictions": [6 / 11, 0]}),
        Edge(
            {"predictions": [3.0, 0.0], "targets": [0.0, 0.0]}, {"alpha": 1e-12}, {"predictions": [6 / 11, 0]}
        ),
    ],
)
def general_robust(predictions: Array, targets: Array, *, alpha: float, c: float) -> Array:
    def formula(p: Number, t: Number) -> Number:
        # a hair beside the limits at 0 and 2 the general formula stands for them
        a = mpmath.mpf(alpha) + mpmath.mpf("1e-40")
        b, z = abs(a - 2), ((p - t) / mpmath.mpf(c)) ** 2
        if alpha < -1e30:
            return 1 - mpmath.exp(-z / 2)
        return b / a * ((z / b + 1) ** (a / 2) - 1)

    return elementwise(formula, predictions, targets)
