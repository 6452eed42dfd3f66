"""Relative errors by loops over the elements, logarithmic ones by the logarithm of the ratio."""

import mpmath
import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, Number, elementwise

oracles = Oracles()
DRAWS = [({"...": ()}, {}), ({"...": (4, 5)}, {"epsilon": 0.5})]


@oracles.of(
    "mape",
    tolerance=1e-12,
    draws=DRAWS,
    edges=[
        # the floor is a maximum, not added; a perfect fit at zero costs nothing
        Edge(
            {"predictions": [3.0, 0.0, 1.0, -1.0], "targets": [2.0, 0.0, 0.0, -2.0]},
            {"epsilon": 0.5},
            {"predictions": [50, 0, 200, 50]},
        ),
        # zeros are left out, whatever is predicted for them; what is near zero is not
        Edge(
            {"predictions": [3.0, np.inf, np.nan, -1.0, 1.0], "targets": [2.0, 0.0, -0.0, -2.0, 0.25]},
            {"epsilon": 0.5, "skip_zeros": True},
            {"predictions": [50, 0, 0, 50, 200], "targets": [-75, 0, 0, -25, -200]},
        ),
        Edge(
            {"predictions": [3.0, 1.0], "targets": [0.0, 0.0]}, {"skip_zeros": True}, {"predictions": [0, 0]}
        ),
    ],
)
def mape(predictions: Array, targets: Array, *, epsilon: float, skip_zeros: bool) -> dict[str, Array]:
    counted = np.where(targets == 0, 0.0, 1.0) if skip_zeros else np.ones_like(targets)
    known = np.where(counted == 0, 1.0, targets)
    predicted = np.where(counted == 0, 1.0, predictions)
    loss = elementwise(lambda p, t: 100 * abs(p - t) / max(abs(t), mpmath.mpf(epsilon)), predicted, known)
    return {"loss": loss, "divisor": counted}


@oracles.of(
    "smape",
    draws=DRAWS,
    edges=[
        # 0 where both are 0; 200 and no slope where the signs differ; slope through the denominator elsewhere
        Edge(
            {"predictions": [0.0, 1.0, 3.0], "targets": [0.0, -2.0, 1.0]},
            {},
            {"predictions": [0, 0, 25]},
        ),
    ],
)
def smape(predictions: Array, targets: Array, *, epsilon: float) -> Array:
    def formula(p: Number, t: Number) -> Number:
        return 100 * abs(p - t) / max((abs(p) + abs(t)) / 2, mpmath.mpf(epsilon) / 2)

    return elementwise(formula, predictions, targets)


@oracles.of(
    "wmape",
    draws=DRAWS,
    edges=[
        Edge({"predictions": [0.0, 0.0], "targets": [0.0, 0.0]}, {}, {"predictions": [0, 0]}),
        Edge({"predictions": [1.0, 0.0], "targets": [0.0, 0.0]}, {"epsilon": 0.5}, {"predictions": [200, 0]}),
        Edge({"predictions": [3.0, 1.0], "targets": [2.0, -2.0]}, {}, {"predictions": [25, 25]}),
    ],
)
def wmape(predictions: Array, targets: Array, *, epsilon: float) -> float:
    pairs = list(zip(predictions.ravel().tolist(), targets.ravel().tolist(), strict=True))
    return 100 * sum(abs(p - t) for p, t in pairs) / max(sum(abs(t) for _, t in pairs), epsilon)


LOGARITHMIC = {"predictions": [0.0, -1 + 1e-12, 1e300, 1e-12], "targets": [0.0, 5.0, -0.999, 0.0]}


@oracles.of(
    "msle",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {})],
    edges=[
        Edge(LOGARITHMIC),
        Edge({"predictions": [0.0, 3.0], "targets": [0.0, 3.0]}, {}, {"predictions": [0, 0]}),
    ],
)
def msle(predictions: Array, targets: Array) -> Array:
    return elementwise(lambda p, t: mpmath.log((1 + p) / (1 + t)) ** 2, predictions, targets)


@oracles.of(
    "rmsle",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {})],
    edges=[
        Edge(LOGARITHMIC),
        Edge({"predictions": [0.0, 3.0], "targets": [0.0, 3.0]}, {}, {"predictions": [0, 0]}),
    ],
)
def rmsle(predictions: Array, targets: Array) -> float:
    return float(np.sqrt(msle(predictions, targets).mean()))
