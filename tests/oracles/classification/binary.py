"""Losses of one logit a question, from the probability that the logit stands for, in high precision."""

from typing import Any

import mpmath
import numpy as np
from mpmath import mpf
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
INF = float("inf")


@oracles.of(
    "binary_cross_entropy_with_logits",
    tolerance=1e-12,
    draws=[
        ({"...": (4, 3)}, {"pos_weight": 2.5}),
        ({"...": (2,), "C": 3}, {"pos_weight": (0.0, 1.0, 7.0)}),
        ({"...": (), "C": 2}, {"pos_weight": (0.5, 3.0)}),
        ({"...": ()}, {"pos_weight": 0.0}),
        ({"...": (4, 3)}, {"label_smoothing": 0.1}),
        ({"...": (2,), "C": 3}, {"pos_weight": (0.0, 1.0, 7.0), "label_smoothing": 1.0}),
    ],
    edges=[
        Edge(
            {"logits": [1e4, -1e4, 1e4, -1e4, 0], "targets": [1, 0, 0, 1, 0.5]},
            gradients={"logits": [0, 0, 1, -1, 0]},
        ),
        Edge(
            {"logits": [[1e4, -1e4], [21.0, -21.0]], "targets": [[0, 1], [1, 1]]},
            {"pos_weight": [2, 3]},
        ),
        Edge(
            {"logits": [1e4, -1e4, 0, 0], "targets": [1, 1, 1, 0]},
            {"label_smoothing": 0.5},
            {"logits": [0.25, -0.75, -0.25, 0.25]},
        ),
    ],
)
def binary_cross_entropy_with_logits(
    logits: Array, targets: Array, *, pos_weight: Any, label_smoothing: float
) -> Array:
    weight = np.broadcast_to(1.0 if pos_weight is None else pos_weight, logits.shape)
    # a share of the questions is answered at random
    yes, no = (bits(logits, np.full_like(targets, answer), weight) for answer in (1, 0))
    return (1 - label_smoothing) * bits(logits, targets, weight) + label_smoothing * (yes + no) / 2


@oracles.of(
    "multilabel_soft_margin",
    draws=[({"...": (4, 3), "C": 2}, {"weight": (0.5, 3.0)}), ({"...": (), "C": 5}, {})],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [1e4, -1e4]], "targets": [[1, 0], [0, 1]]},
            gradients={"logits": [[0, 0], [0.5, -0.5]]},
        ),
        Edge({"logits": [[0.3]], "targets": [[0.3]]}, {"weight": [0]}, gradients={"logits": [[0]]}),
    ],
)
def multilabel_soft_margin(logits: Array, targets: Array, *, weight: Any) -> Array:
    terms = bits(logits, targets, np.ones_like(logits))
    return np.average(terms, axis=-1) if weight is None else terms @ np.array(weight) / terms.shape[-1]


@oracles.of(
    "multilabel_margin",
    draws=[({"...": (6, 2), "C": 5}, {}), ({"...": (), "C": 4}, {}), ({"...": (3,), "C": 1}, {})],
    edges=[
        # no label, all labels, and a valid class behind the end of the list
        Edge({"logits": [[1.0, 2.0]], "targets": [[-1, 0]]}, gradients={"logits": [[0, 0]]}),
        Edge({"logits": [[1.0, 2.0]], "targets": [[1, 0]]}, gradients={"logits": [[0, 0]]}),
        Edge({"logits": [[1e4, -1e4]], "targets": [[1, -7]]}, gradients={"logits": [[0.5, -0.5]]}),
        # values after the end need not be classes
        Edge({"logits": [[0.5, 0.0, 0.0]], "targets": [[0, -1, 99]]}),
        # a label that nothing can be ahead of
        Edge({"logits": [[INF, 0.0]], "targets": [[0, -1]]}, gradients={"logits": [[0, 0]]}),
        # at the kink
        Edge({"logits": [[1.0, 0.0]], "targets": [[0, -1]]}, gradients={"logits": [[0, 0]]}),
    ],
)
def multilabel_margin(logits: Array, targets: Array) -> Array:
    loss = np.zeros(logits.shape[:-1])
    for row in np.ndindex(*loss.shape):
        labels: list[int] = []
        for y in targets[row]:
            if y < 0:
                break
            labels.append(y)
        rivals = set(range(logits.shape[-1])) - set(labels)
        scores = logits[row]
        loss[row] = sum(max(0.0, 1 - scores[j] + scores[k]) for j in labels for k in rivals) / len(scores)
    return loss


def bits(logits: Array, targets: Array, weight: Array) -> Array:
    """Return the cross entropy of each yes-or-no question, with a weight of its positive term."""

    def one(z: float, t: float, w: float) -> float:
        p, q = 1 / (1 + mpmath.exp(-mpf(z))), 1 / (1 + mpmath.exp(mpf(z)))
        return float(-w * t * mpmath.log(p) - (1 - t) * mpmath.log(q))

    with mpmath.workdps(40):
        return np.vectorize(one, otypes=[float])(logits, targets, weight)
