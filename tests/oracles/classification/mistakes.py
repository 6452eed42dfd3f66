"""Counts of wrong answers, element by element."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
NAN = float("nan")


@oracles.of(
    "zero_one",
    draws=[({"N": 9, "C": 4, "...": (2, 3)}, {}), ({"N": 5, "C": 2, "...": ()}, {})],
    edges=[
        # of equal scores the first class wins
        Edge({"logits": [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0, 1, 1]], "targets": [0, 1, 1]}),
        Edge({"logits": [[1e4, -1e4], [NAN, 0]], "targets": [1, 0]}),
    ],
)
def zero_one(logits: Array, targets: Array) -> Array:
    loss = np.zeros(targets.shape)
    for place in np.ndindex(*targets.shape):
        scores = list(logits[(place[0], slice(None), *place[1:])])
        wrong = scores.index(max(scores)) != targets[place] if not np.isnan(scores).any() else NAN
        loss[place] = wrong
    return loss


@oracles.of(
    "hamming",
    draws=[({"...": (9, 3)}, {"threshold": -0.4}), ({"...": ()}, {})],
    edges=[Edge({"logits": [0.0, 0.0, 0.1, -0.1, NAN], "targets": [0, 1, 0, 1, 0]})],
)
def hamming(logits: Array, targets: Array, *, threshold: float) -> Array:
    wrong = np.logical_xor(np.sign(logits - threshold) == 1, targets == 1).astype(float)
    return np.where(np.isnan(logits), NAN, wrong)
