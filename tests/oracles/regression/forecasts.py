"""Scores of forecasts by quadrature of their definition, and over a table of all pairs of members."""

import numpy as np
import scipy.integrate
import scipy.special

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array

oracles = Oracles()


@oracles.of(
    "crps_gaussian",
    draws=[({"...": ()}, {}), ({"...": (2, 3)}, {})],
    edges=[
        Edge(
            {
                "predictions": [1.0, 0.0, 1e4, 1e200],
                "targets": [1.0, 3.0, -1e4, 0.0],
                "scales": [2.0, 1.0, 1e-2, 3.0],
            },
            {},
            {
                "predictions": [0, np.nan, 1, 1],
                "scales": [np.sqrt(2 / np.pi) - np.sqrt(1 / np.pi), np.nan, *[-np.sqrt(1 / np.pi)] * 2],
            },
        )
    ],
)
def crps_gaussian(predictions: Array, targets: Array, scales: Array) -> Array:
    def one(p: float, t: float, s: float) -> float:
        z = (t - p) / s
        if abs(z) > 12:
            return abs(t - p) - s / np.sqrt(np.pi)
        below = scipy.integrate.quad(lambda x: scipy.special.ndtr(x) ** 2, -12, z, epsabs=1e-13)[0]
        above = scipy.integrate.quad(lambda x: scipy.special.ndtr(-x) ** 2, z, 12, epsabs=1e-13)[0]
        return s * (below + above)

    return np.vectorize(one, otypes=[np.float64])(predictions, targets, scales)


@oracles.of(
    "crps_ensemble",
    draws=[
        ({"...": (), "M": 6}, {"fair": True}),
        ({"...": (2, 3), "M": 5}, {}),
        ({"...": (3,), "M": 1}, {}),
    ],
    edges=[
        # members that coincide, and one that hits the outcome
        Edge(
            {"predictions": [[1.0, 1.0, 3.0]], "targets": [0.0]},
            {},
            {"predictions": [[1 / 3 + 1 / 9, 1 / 3 + 1 / 9, 1 / 3 - 2 / 9]]},
        ),
        Edge({"predictions": [[2.0, 2.0]], "targets": [2.0]}, {"fair": True}, {"predictions": [[0, 0]]}),
        Edge({"predictions": [5.0], "targets": 2.0}, {}, {"predictions": [1]}),
        # a small spread far from zero
        Edge({"predictions": [[1e9, 1e9 + 1, 1e9 + 2]], "targets": [1e9 + 0.5]}, {"fair": True}),
    ],
)
def crps_ensemble(predictions: Array, targets: Array, *, fair: bool) -> Array:
    members = predictions.shape[-1]
    distances = np.abs(predictions[..., :, None] - predictions[..., None, :]).sum((-2, -1))
    pairs = 2 * members * (members - 1) if fair else 2 * members**2
    return np.abs(predictions - targets[..., None]).mean(-1) - distances / pairs
