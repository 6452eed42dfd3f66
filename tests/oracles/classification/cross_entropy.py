"""Cross entropy from its definition, a sum over classes with scipy's log-softmax, as an independent path."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "cross_entropy",
    draws=[
        ({"N": 5, "C": 7, "...": (2, 3)}, {"label_smoothing": 0.3}),
        ({"N": 4, "C": 3, "...": ()}, {"weight": (0.5, 0.3, 2.0), "label_smoothing": 0.1}),
    ],
    edges=[
        # saturated logits, and a target that is ignored
        Edge(
            {"logits": [[1e4, -1e4], [0, 1]], "targets": [1, -100]}, gradients={"logits": [[1, -1], [0, 0]]}
        ),
        # a class of probability zero costs nothing where its target is zero: 0 log 0 = 0
        Edge({"logits": [2.0, 1.0], "targets": [0.0, 1.0]}),
    ],
)
def cross_entropy(
    logits: Array, targets: Array, *, weight: Any, ignore_index: int, label_smoothing: float
) -> dict[str, Array]:
    axis = 0 if logits.ndim == 1 else 1
    classes = np.moveaxis(logits, axis, -1)
    w = np.ones(classes.shape[-1]) if weight is None else np.array(weight)
    indexed = targets.dtype.kind == "i"
    hard = np.eye(classes.shape[-1])[np.where(targets == ignore_index, 0, targets)] if indexed else None
    q = hard if hard is not None else np.moveaxis(targets, axis, -1)
    smooth = (1 - label_smoothing) * q + label_smoothing / classes.shape[-1]
    loss = -(w * smooth * log_softmax(classes, axis=-1)).sum(-1)
    if hard is None:
        return {"loss": loss, "divisor": np.ones_like(loss)}
    counted = targets != ignore_index
    return {"loss": loss * counted, "divisor": (hard * w).sum(-1) * counted}
