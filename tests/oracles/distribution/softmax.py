"""Entropy by scipy, and distillation as a cross entropy less the teacher's own entropy."""

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, log_softmax, softmax
from scipy.stats import entropy as scipy_entropy

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "entropy",
    draws=[({"...": (), "C": 6}, {}), ({"...": (2, 3), "C": 1}, {})],
    edges=[
        # certain, by saturation or because the other classes are ruled out
        Edge({"logits": [[1e4, -1e4], [3.0, -inf]]}, gradients={"logits": [[0, 0], [0, 0]]}),
        # even, over all classes or over those that are left
        Edge({"logits": [[-1e4, -1e4, -1e4], [2.0, 2.0, -inf]]}, gradients={"logits": [[0] * 3] * 2}),
    ],
)
def entropy(logits: Array) -> Array:
    return np.asarray(scipy_entropy(softmax(logits, axis=-1), axis=-1))


@oracles.of(
    "distillation",
    draws=[
        ({"...": (), "C": 6}, {"temperature": 1.0}),
        ({"...": (2, 3), "C": 4}, {"temperature": 0.3}),
        ({"...": (2,), "C": 3}, {"temperature": 20.0}),
    ],
    edges=[
        Edge({"logits": [[1.0, 2.0, 3.0]], "targets": [[3.0, 4.0, 5.0]]}, gradients={"logits": [[0, 0, 0]]}),
        # opposite certainties: the gradient is T (p - q)
        Edge({"logits": [[1e4, -1e4]], "targets": [[-1e4, 1e4]]}, gradients={"logits": [[2, -2]]}),
        # a class that student and teacher both rule out
        Edge({"logits": [[1.0, 0.0, -inf]], "targets": [[0.0, 1.0, -1e4]]}),
    ],
)
def distillation(logits: Array, targets: Array, *, temperature: float) -> Array:
    teacher, student = softmax(targets / temperature, axis=-1), log_softmax(logits / temperature, axis=-1)
    cross_entropy = np.where(teacher == 0, 0, -teacher * np.where(teacher == 0, 0, student)).sum(-1)
    return temperature**2 * (cross_entropy - entr(teacher).sum(-1))
