"""Losses of pairs from their probabilities, written as numpy's logaddexp and as cases."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "margin_ranking",
    draws=[({"...": (3, 4)}, {"margin": 0.7}), ({"...": ()}, {"margin": -0.2})],
    edges=[
        # at the kink the gradient is 0, in order it is gone, and in the wrong order it is full
        Edge(
            {"scores_a": [1.0, 2.0, 0.0], "scores_b": [1.0, 0.0, 1.0], "targets": [1, 1, 1]},
            gradients={"scores_a": [0, 0, -1], "scores_b": [0, 0, 1]},
        ),
        Edge(
            {"scores_a": [3.0, 1e4], "scores_b": [1.0, -1e4], "targets": [1, -1]},
            {"margin": 2.0},
            gradients={"scores_a": [0, 1]},
        ),
    ],
)
def margin_ranking(scores_a: Array, scores_b: Array, targets: Array, *, margin: float) -> Array:
    lead = np.where(targets == 1, scores_a - scores_b, scores_b - scores_a)
    return np.where(lead >= margin, 0.0, margin - lead)


@oracles.of(
    "ranknet_pairwise",
    draws=[({"...": (3, 4)}, {"sigma": 2.5}), ({"...": ()}, {})],
    edges=[
        Edge(
            {"scores_a": [1e4, 1e4, 1e4], "scores_b": [-1e4, -1e4, -1e4], "targets": [1.0, 0.0, 0.5]},
            gradients={"scores_a": [0, 1, 0.5]},
        ),
        # the small loss of a pair that is right keeps its digits
        Edge({"scores_a": [30.0, -30.0], "scores_b": [0.0, 0.0], "targets": [1.0, 0.0]}),
        Edge({"scores_a": [1.0], "scores_b": [1.0], "targets": [0.5]}, gradients={"scores_a": [0]}),
    ],
)
def ranknet_pairwise(scores_a: Array, scores_b: Array, targets: Array, *, sigma: float) -> Array:
    lead = sigma * (scores_a - scores_b)
    return targets * np.logaddexp(0, -lead) + (1 - targets) * np.logaddexp(0, lead)


@oracles.of(
    "bpr",
    draws=[({"...": (3, 4)}, {}), ({"...": ()}, {})],
    edges=[
        Edge(
            {"scores_a": [1e4, -1e4, 0.0], "scores_b": [-1e4, 1e4, 0.0]},
            gradients={"scores_a": [0, -1, -0.5], "scores_b": [0, 1, 0.5]},
        )
    ],
)
def bpr(scores_a: Array, scores_b: Array) -> Array:
    # the log of the preferred item's share in a softmax over the two
    return np.logaddexp(scores_a, scores_b) - scores_a
