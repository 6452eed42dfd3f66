"""Agreement of sequences from numpy's correlations and covariances, one sequence at a time."""

from collections.abc import Callable

import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array

oracles = Oracles()
DRAWS = [
    ({"...": (), "T": 7}, {}),
    ({"...": (2, 3), "T": 5}, {}),
    ({"...": (4,), "T": 2}, {}),
]


@oracles.of(
    "pearson_correlation",
    draws=DRAWS,
    edges=[
        # a constant sequence, on either side, small, large and not exact in binary
        Edge(
            {
                "predictions": [[0.1, 0.1, 0.1], [1.0, 2.0, 4.0], [1e9, 1e9, 1e9]],
                "targets": [[1.0, 2.0, 4.0], [0.1, 0.1, 0.1], [1.0, 2.0, 4.0]],
            },
            {},
            {"predictions": [[0] * 3] * 3},
        ),
        Edge({"predictions": [1.0, 2.0, 3.0], "targets": [5.0, 7.0, 9.0]}, {}, {"predictions": [0, 0, 0]}),
        # in units in which both vary little
        Edge({"predictions": [1e-5, 2e-5, 3e-5, 5e-5], "targets": [1e-5, 2e-5, 4e-5, 5e-5]}),
        Edge({"predictions": [1e200, 3e200, 2e200], "targets": [1e200, -1e200, 5e200]}),
    ],
)
def pearson_correlation(predictions: Array, targets: Array) -> Array:
    def one(p: Array, t: Array) -> float:
        constant = (p == p[0]).all() or (t == t[0]).all()
        return 1.0 if constant else 1 - np.corrcoef(p / np.abs(p).max(), t / np.abs(t).max())[0, 1]

    return _by_sequence(one, predictions, targets)


@oracles.of(
    "concordance_correlation",
    draws=DRAWS,
    edges=[
        # equal constants agree by no measure; a perfect fit costs nothing
        Edge(
            {
                "predictions": [[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]],
                "targets": [[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]],
            },
            {},
            {"predictions": [[0] * 3] * 2},
        ),
        # in a unit in which all moments are tiny
        Edge({"predictions": [1e-9, 2e-9, 3e-9, 5e-9], "targets": [1e-9, 2e-9, 4e-9, 5e-9]}),
        # constants that differ, and one constant
        Edge({"predictions": [[3.0, 3.0], [1.0, 2.0]], "targets": [[1.0, 1.0], [1.5, 1.5]]}),
    ],
)
def concordance_correlation(predictions: Array, targets: Array) -> Array:
    def one(p: Array, t: Array) -> float:
        (var_p, cov), (_, var_t) = np.cov(p, t, ddof=0)
        spread = var_p + var_t + (p.mean() - t.mean()) ** 2
        equal_constants = (p == p[0]).all() and (t == p[0]).all()
        return 1.0 if equal_constants else 1 - 2 * cov / spread

    return _by_sequence(one, predictions, targets)


def _by_sequence(one: Callable[[Array, Array], float], predictions: Array, targets: Array) -> Array:
    rows = zip(
        predictions.reshape(-1, predictions.shape[-1]), targets.reshape(-1, targets.shape[-1]), strict=True
    )
    return np.reshape([one(p, t) for p, t in rows], predictions.shape[:-1])
