"""Losses of dense scores element by element, with scipy's stable logarithms of a sigmoid and a softmax."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[np.float64]
SATURATED = {"logits": [1e4, -1e4, 100.0, -100.0, 1e4, -1e4], "targets": [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]}


@oracles.of(
    "distribution_focal",
    draws=[({"...": (5,), "K": 2}, {}), ({"...": (2, 4), "K": 17}, {}), ({"...": (), "K": 3}, {})],
    edges=[
        # the first bin, the last bin, and bins in between
        Edge({"logits": [[1.0, 2.0, 3.0]] * 4, "targets": [0.0, 2.0, 1.0, 1.999]}),
        Edge(
            {"logits": [[1e4, -1e4], [-1e4, 1e4]], "targets": [0.0, 0.5]},
            gradients={"logits": [[0, 0], [-0.5, 0.5]]},
        ),
    ],
)
def distribution_focal(logits: Array, targets: Array) -> Array:
    bins = np.arange(logits.shape[-1])
    # each position is spread over its neighbours by a hat function
    weights = np.maximum(0, 1 - np.abs(targets[..., None] - bins))
    return -(weights * log_softmax(logits, axis=-1)).sum(-1)


@oracles.of(
    "quality_focal",
    draws=[({"...": (3, 4)}, {"beta": 1.0}), ({"...": (9,)}, {"beta": 0.0}), ({"...": (9,)}, {"beta": 0.5})],
    edges=[
        Edge(SATURATED, gradients={"logits": [0, 0, 1, -1, 1, -1]}),
        Edge(SATURATED, {"beta": 0.5}, {"logits": [0, 0, 1, -1, 1, -1]}),
        Edge(SATURATED, {"beta": 0.0}),
        # a score that is exactly right still has the entropy of its target, but no weight
        Edge({"logits": [0.0], "targets": [0.5]}, {"beta": 0.5}, {"logits": [0]}),
    ],
)
def quality_focal(logits: Array, targets: Array, *, beta: float) -> Array:
    return np.abs(targets - expit(logits)) ** beta * cross_entropy(logits, targets)


@oracles.of(
    "varifocal",
    draws=[({"...": (3, 4)}, {"gamma": 0.0}), ({"...": (9,)}, {"gamma": 0.5, "alpha": 0.2})],
    edges=[
        Edge(SATURATED, gradients={"logits": [0, 0, 0.75, -1, 0.75, -1]}),
        Edge(SATURATED, {"gamma": 0.5}, {"logits": [0, 0, 0.75, -1, 0.75, -1]}),
        Edge({"logits": [1.0, -2.0, 0.3], "targets": [0.0, 0.0, 0.0]}, {"iou_weighted": False}),
    ],
)
def varifocal(logits: Array, targets: Array, *, alpha: float, gamma: float, iou_weighted: bool) -> Array:
    negative = alpha * expit(logits) ** gamma * -log_expit(-logits)
    positive = (targets if iou_weighted else 1.0) * cross_entropy(logits, targets)
    return np.where(targets > 0, positive, negative)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Return the cross entropy of a sigmoid, by the logarithms of its two sides."""
    return -(targets * log_expit(logits) + (1 - targets) * log_expit(-logits))
