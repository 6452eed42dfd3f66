"""Token cross entropy one token after the other."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "token_cross_entropy",
    draws=[
        ({"...": (3, 4), "V": 7}, {"label_smoothing": 0.1}),
        ({"...": (), "V": 3}, {"label_smoothing": 1.0}),
        ({"...": (5,), "V": 2}, {"ignore_index": 1}),
        ({"...": (2, 2, 2), "V": 1}, {}),
    ],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [0, 1], [-1e4, 1e4]], "targets": [1, -100, 1]},
            gradients={"logits": [[1, -1], [0, 0], [0, 0]]},
        ),
        # values at ignored positions are not used
        Edge(
            {"logits": [[np.nan, 1], [np.inf, 0], [0, 0]], "targets": [-100, -100, 0]},
            {"label_smoothing": 0.2},
            {"logits": [[0, 0], [0, 0], [-0.4, 0.4]]},
        ),
        # nothing counts: a perplexity of nothing
        Edge(
            {"logits": [[0, 1], [2, 3]], "targets": [7, 7]},
            {"ignore_index": 7},
            {"logits": [[0, 0], [0, 0]]},
        ),
        # a forbidden token costs nothing where it is not wanted
        Edge({"logits": [[-np.inf, 0, 0]], "targets": [1]}, gradients={"logits": [[0, -0.5, 0.5]]}),
    ],
)
def token_cross_entropy(
    logits: Array, targets: Array, *, ignore_index: int, label_smoothing: float
) -> dict[str, Any]:
    loss, divisor = np.zeros(targets.shape), np.zeros(targets.shape)
    surprises: list[float] = []
    for place in np.ndindex(*targets.shape):
        if targets[place] == ignore_index:
            continue
        costs = logsumexp(logits[place]) - logits[place]
        surprises.append(costs[targets[place]])
        smooth = np.full(costs.shape, label_smoothing / len(costs))
        smooth[targets[place]] += 1 - label_smoothing
        loss[place], divisor[place] = sum(w * c for w, c in zip(smooth, costs, strict=True) if w), 1
    with np.errstate(over="ignore"):
        perplexity = np.exp(math.fsum(surprises) / len(surprises)) if surprises else math.nan
    return {"loss": loss, "divisor": divisor, "perplexity": perplexity}
