"""Asymmetric errors as a symmetric one tilted: another way to write both prices."""

import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array

oracles = Oracles()
SIDES = {"predictions": [0.0, 1.0, 2.0], "targets": [1.0, 1.0, 1.0]}


@oracles.of(
    "quantile",
    draws=[({"...": ()}, {"quantile": 0.2}), ({"...": (4, 5)}, {"quantile": 0.95})],
    edges=[Edge(SIDES, {"quantile": 0.75}, {"predictions": [-0.75, 0, 0.25]})],
)
def quantile(predictions: Array, targets: Array, *, quantile: float) -> Array:
    errors = targets - predictions
    return np.abs(errors) / 2 + (quantile - 0.5) * errors


@oracles.of(
    "multi_quantile",
    draws=[
        ({"...": (), "Q": 3}, {}),
        ({"...": (4, 2), "Q": 2}, {"quantiles": (0.25, 0.75)}),
        ({"...": (3,), "Q": 1}, {"quantiles": (0.9,)}),
    ],
    edges=[
        Edge(
            {"predictions": [[0.0, 1.0, 2.0]], "targets": [1.0]},
            {"quantiles": [0.75, 0.5, 0.25]},
            {"predictions": [[-0.75, 0, 0.75]]},
        )
    ],
)
def multi_quantile(predictions: Array, targets: Array, *, quantiles: tuple[float, ...]) -> Array:
    columns = [quantile(predictions[..., k], targets, quantile=q) for k, q in enumerate(quantiles)]
    return np.stack(columns, axis=-1)


@oracles.of(
    "expectile",
    draws=[({"...": ()}, {"expectile": 0.2}), ({"...": (4, 5)}, {"expectile": 0.95})],
    edges=[Edge(SIDES, {"expectile": 0.75}, {"predictions": [-1.5, 0, 0.5]})],
)
def expectile(predictions: Array, targets: Array, *, expectile: float) -> Array:
    errors = targets - predictions
    return np.abs(expectile - (errors < 0)) * errors**2
