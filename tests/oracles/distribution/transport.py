"""Transport by a matrix of sums, by scipy, and by repeating every sample until both sides have as many."""

from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "cdf_wasserstein",
    draws=[({"...": (), "C": 6}, {}), ({"...": (2, 3), "C": 4}, {"p": 2}), ({"...": (3,), "C": 1}, {})],
    edges=[
        # all mass three bins off; the last gap is none, so the last bin has no pull
        Edge(
            {"probabilities": [[1.0, 0.0, 0.0, 0.0]], "targets": [[0.0, 0.0, 0.0, 1.0]]},
            gradients={"probabilities": [[3, 2, 1, 0]]},
        ),
        # the last sums are 1 only up to rounding, which is no gap either
        Edge(
            {"probabilities": [[0.2, 0.72, 0.08]], "targets": [[0.6, 0.1, 0.3]]},
            gradients={"probabilities": [[0, 1, 0]]},
        ),
        # sums that are off by more are one
        Edge(
            {"probabilities": [[0.5, 0.4995]], "targets": [[0.5, 0.5]]},
            gradients={"probabilities": [[-1, -1]]},
        ),
        Edge(
            {"probabilities": [[0.5, 0.5]], "targets": [[0.5, 0.5]]},
            {"p": 2},
            gradients={"probabilities": [[0, 0]]},
        ),
    ],
)
def cdf_wasserstein(probabilities: Array, targets: Array, *, p: int) -> Array:
    bins = probabilities.shape[-1]
    cumulated = (probabilities - targets) @ np.triu(np.ones((bins, bins)))
    return (np.abs(cumulated) ** p).sum(-1)


@oracles.of(
    "wasserstein_1d",
    draws=[
        ({"...": (), "N": 5, "M": 5}, {}),
        ({"...": (2, 3), "N": 6, "M": 4}, {"p": 2}),
        ({"...": (2,), "N": 1, "M": 7}, {}),
        ({"...": (2,), "N": 49, "M": 10}, {}),
        ({"...": (2,), "N": 12, "M": 3}, {"p": 2}),
    ],
    edges=[
        # the same samples in another order
        Edge(
            {"predictions": [3.0, 1.0, 2.0], "targets": [1.0, 2.0, 3.0]}, gradients={"predictions": [0, 0, 0]}
        ),
        # the same distribution in another number of samples
        Edge(
            {"predictions": [[2.0, 1.0]], "targets": [[1.0, 1.0, 2.0, 2.0]]},
            gradients={"predictions": [[0, 0]], "targets": [[0, 0, 0, 0]]},
        ),
        # the second of two samples covers a third target wholly and half of another
        Edge(
            {"predictions": [4.0, 0.0], "targets": [1.0, 2.0, 3.0]},
            {"p": 2},
            gradients={"predictions": [2 * (1 / 3 + 2 / 6), -2 * (1 / 3 + 2 / 6)]},
        ),
        Edge({"predictions": [1e4, -1e4, 0.0, 0.0], "targets": [0.0, 5.0]}),
    ],
)
def wasserstein_1d(predictions: Array, targets: Array, *, p: int) -> Array:
    n, m = predictions.shape[-1], targets.shape[-1]
    rows = zip(predictions.reshape(-1, n), targets.reshape(-1, m), strict=True)
    if p == 1:
        return np.reshape([wasserstein_distance(x, y) for x, y in rows], predictions.shape[:-1])
    size = lcm(n, m)
    equal = [(np.repeat(sorted(x), size // n), np.repeat(sorted(y), size // m)) for x, y in rows]
    return np.reshape([np.mean((x - y) ** 2) for x, y in equal], predictions.shape[:-1])
