"""Features pair by pair, by numpy's covariance and its correlation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


HUGE = {"anchor": [[1e4, -1e4], [-1e4, 1e4]], "positive": [[-1e4, 1e4], [-1e4, 1e4]]}
CONSTANT = {"anchor": [[1, 2], [1, 2], [1, 2]], "positive": [[1, 2], [1, 3], [1, 4]]}


@oracles.of(
    "vicreg",
    draws=[
        ({"N": 9, "D": 5}, {"invariance_weight": 1.0, "variance_weight": 2.0, "covariance_weight": 3.0}),
        ({"N": 2, "D": 1}, {"eps": 0.1}),
    ],
    edges=[Edge(HUGE), Edge(CONSTANT)],
)
def vicreg(
    anchor: Array,
    positive: Array,
    *,
    invariance_weight: float,
    variance_weight: float,
    covariance_weight: float,
    eps: float,
) -> float:
    features = range(anchor.shape[1])
    covariances = [np.atleast_2d(np.cov(view, rowvar=False)) for view in (anchor, positive)]
    spread = np.mean([[max(0, 1 - np.sqrt(c[d, d] + eps)) for d in features] for c in covariances])
    shared = sum(c[d, e] ** 2 for c in covariances for d in features for e in features if d != e)
    invariance = np.mean((anchor - positive) ** 2)
    return float(
        invariance_weight * invariance + variance_weight * spread + covariance_weight * shared / len(features)
    )


@oracles.of(
    "barlow_twins",
    draws=[({"N": 9, "D": 5}, {"off_diagonal_weight": 0.5}), ({"N": 2, "D": 1}, {"eps": 0.1})],
    edges=[Edge(HUGE), Edge(CONSTANT)],
)
def barlow_twins(anchor: Array, positive: Array, *, off_diagonal_weight: float, eps: float) -> float:
    total = 0.0
    for d, a in enumerate(anchor.T):
        for e, p in enumerate(positive.T):
            shared = np.cov(a, p, ddof=0)
            c = shared[0, 1] / np.sqrt((shared[0, 0] + eps) * (shared[1, 1] + eps))
            total += (1 - c) ** 2 if d == e else off_diagonal_weight * c**2
    return total
