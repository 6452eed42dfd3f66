"""Anchors one by one over lists of their positives and negatives, triplets in loops."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


# equal points with equal and with different labels, one label alone
CROWDED = {"embeddings": [[1, 2], [1, 2], [1, 2], [4, 6], [0, 2]], "targets": [7, 7, -3, -3, 5]}
ALL_ALIKE = {"embeddings": [[1, 2], [0, 1], [-1, 1]], "targets": [4, 4, 4]}
ALL_DIFFERENT = {"embeddings": [[1, 2], [0, 1], [-1, 1]], "targets": [1, 2, 3]}
ALONE = {"embeddings": [[1, 2]], "targets": [0]}
HUGE = {"embeddings": [[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, 1e4]], "targets": [0, 0, 1, 1]}
ZERO = {"embeddings": [[0, 0], [1, 2], [0, 0], [2, 1]], "targets": [0, 0, 1, 1]}
EDGES = [Edge(inputs) for inputs in (CROWDED, ALL_ALIKE, ALL_DIFFERENT, ALONE, HUGE, ZERO)]
STILL = {"embeddings": [[0, 0], [0, 0], [0, 0]]}
"""No gradient at all."""
NO_PAIR = [Edge(inputs, gradients=STILL) for inputs in (ALL_ALIKE, ALL_DIFFERENT)]
# more labels than two, uneven
MANY: Any = {"N": 13, "D": 3}


@oracles.of(
    "batch_hard_triplet",
    draws=[(MANY, {"margin": 0.2}), (MANY, {"soft": True}), (MANY, {"margin": 5.0})],
    edges=[
        *EDGES,
        *NO_PAIR,
        Edge({**CROWDED}, {"soft": True}),
        # all at one point: the cost is the margin, and nothing can part them
        Edge(
            {"embeddings": [[1, 1], [1, 1], [1, 1]], "targets": [0, 0, 1]},
            gradients=STILL,
        ),
        # nearly at one point, where an expanded square has lost all digits
        Edge({"embeddings": [[1e3], [1e3 + 1e-6], [1e3 + 3e-6]], "targets": [0, 0, 1]}, {"margin": 1e-5}),
    ],
)
def batch_hard_triplet(embeddings: Array, targets: Array, *, margin: float, soft: bool) -> dict[str, Any]:
    losses: list[float] = []
    divisor: list[int] = []
    for i, positives, negatives in _anchors(targets):
        divisor.append(int(bool(positives and negatives)))
        if not divisor[-1]:
            losses.append(0.0)
            continue
        farthest = max(_apart(embeddings, i, p) for p in positives)
        v = farthest - min(_apart(embeddings, i, n) for n in negatives)
        losses.append(np.logaddexp(0, v) if soft else max(0, v + margin))
    return {"loss": losses, "divisor": divisor}


@oracles.of(
    "batch_all_triplet",
    draws=[(MANY, {"margin": 0.2}), (MANY, {"margin": 0.0}), (MANY, {"margin": -0.5}), ({"N": 2}, {})],
    edges=[
        *EDGES,
        *NO_PAIR,
        # terms of exactly 0 are not counted, nor do they pull: d(a, p) = 1, d(a, n) = 2
        Edge(
            {"embeddings": [[0], [1], [2]], "targets": [0, 0, 1]}, gradients={"embeddings": [[-1], [2], [-1]]}
        ),
        # several positives and negatives at equal distances
        Edge(
            {
                "embeddings": [[0, 0], [3, 4], [-3, 4], [0, 5], [5, 0], [6, 0], [0, 6]],
                "targets": [0] * 3 + [1] * 4,
            }
        ),
        Edge({"embeddings": [[1e3], [1e3 + 1e-6], [1e3 + 3e-6]], "targets": [0, 0, 1]}, {"margin": 1e-5}),
    ],
)
def batch_all_triplet(embeddings: Array, targets: Array, *, margin: float) -> dict[str, Any]:
    losses: list[float] = []
    divisor: list[int] = []
    for i, positives, negatives in _anchors(targets):
        terms = [
            max(0, _apart(embeddings, i, p) - _apart(embeddings, i, n) + margin)
            for p in positives
            for n in negatives
        ]
        losses.append(sum(terms))
        divisor.append(sum(term > 0 for term in terms))
    return {"loss": losses, "divisor": divisor}


@oracles.of(
    "supcon",
    draws=[(MANY, {"temperature": 0.5}), (MANY, {"temperature": 0.001})],
    edges=[*EDGES, Edge(ALL_DIFFERENT, gradients=STILL)],
)
def supcon(embeddings: Array, targets: Array, *, temperature: float) -> dict[str, Any]:
    s = _cosines(embeddings) / temperature
    losses = [
        -np.mean([s[i, p] - logsumexp([s[i, k] for k in positives + negatives]) for p in positives])
        if positives
        else 0.0
        for i, positives, negatives in _anchors(targets)
    ]
    return {"loss": losses, "divisor": [bool(positives) for _, positives, _ in _anchors(targets)]}


@oracles.of(
    "multi_similarity",
    draws=[(MANY, {"alpha": 1.0, "beta": 3.0, "base": 0.1}), (MANY, {"beta": 500.0})],
    edges=[*EDGES, Edge(ALONE, gradients={"embeddings": [[0, 0]]})],
)
def multi_similarity(
    embeddings: Array, targets: Array, *, alpha: float, beta: float, base: float
) -> list[float]:
    s = _cosines(embeddings)
    return [
        np.log(1 + sum(np.exp(-alpha * (s[i, p] - base)) for p in positives)) / alpha
        + np.log(1 + sum(np.exp(beta * (s[i, n] - base)) for n in negatives)) / beta
        for i, positives, negatives in _anchors(targets)
    ]


@oracles.of(
    "circle",
    draws=[(MANY, {"margin": 0.25, "gamma": 5.0}), (MANY, {"gamma": 256.0})],
    edges=[*EDGES, *NO_PAIR],
)
def circle(embeddings: Array, targets: Array, *, margin: float, gamma: float) -> dict[str, Any]:
    s = _cosines(embeddings)
    losses: list[float] = []
    for i, positives, negatives in _anchors(targets):
        # the product of the sums is a sum over all pairs of one positive and one negative
        exponents = [
            gamma * max(0, s[i, n] + margin) * (s[i, n] - margin)
            - gamma * max(0, 1 + margin - s[i, p]) * (s[i, p] - (1 - margin))
            for p in positives
            for n in negatives
        ]
        losses.append(logsumexp([0, *exponents]))
    return {"loss": losses, "divisor": [bool(p and q) for _, p, q in _anchors(targets)]}


@oracles.of(
    "nca",
    draws=[(MANY, {"softmax_scale": 9.0}), (MANY, {"normalize": False}), (MANY, {"softmax_scale": 300.0})],
    edges=[
        *EDGES,
        Edge(HUGE, {"normalize": False}),
        Edge(CROWDED, {"normalize": False}),
        Edge(ALL_DIFFERENT, gradients=STILL),
        Edge(ALL_ALIKE, gradients=STILL),
    ],
)
def nca(embeddings: Array, targets: Array, *, softmax_scale: float, normalize: bool) -> dict[str, Any]:
    points = _unit(embeddings) if normalize else embeddings
    losses: list[float] = []
    for i, positives, negatives in _anchors(targets):
        near = {k: -softmax_scale * _apart(points, i, k) ** 2 for k in positives + negatives}
        # only differences count, and small numbers keep more digits of them
        near = {k: value - max(near.values()) for k, value in near.items()}
        whole = logsumexp([*near.values()]) if near else 0.0
        losses.append(whole - logsumexp([near[p] for p in positives]) if positives else 0.0)
    return {"loss": losses, "divisor": [bool(positives) for _, positives, _ in _anchors(targets)]}


@oracles.of(
    "lifted_structure",
    draws=[
        (MANY, {"neg_margin": 2.0, "pos_margin": 0.3}),
        (MANY, {"normalize": False}),
        (MANY, {"neg_margin": -9.0}),
    ],
    edges=[*EDGES, Edge(HUGE, {"normalize": False}), Edge(ALONE, gradients={"embeddings": [[0, 0]]})],
)
def lifted_structure(
    embeddings: Array, targets: Array, *, neg_margin: float, pos_margin: float, normalize: bool
) -> list[float]:
    points = _unit(embeddings) if normalize else embeddings
    losses: list[float] = []
    for i, positives, negatives in _anchors(targets):
        pull = logsumexp([_apart(points, i, p) - pos_margin for p in positives]) if positives else 0.0
        push = logsumexp([neg_margin - _apart(points, i, n) for n in negatives]) if negatives else 0.0
        losses.append(max(0, pull + push))
    return losses


def _anchors(targets: Array) -> list[tuple[int, list[int], list[int]]]:
    rows = range(len(targets))
    return [
        (
            i,
            [k for k in rows if k != i and targets[k] == targets[i]],
            [k for k in rows if targets[k] != targets[i]],
        )
        for i in rows
    ]


def _apart(points: Array, i: int, k: int) -> float:
    return float(np.sqrt(sum((points[i] - points[k]) ** 2)))


def _unit(vectors: Array) -> Array:
    return np.array([v / max(np.sqrt(sum(v * v)), 1e-12) for v in vectors])


def _cosines(vectors: Array) -> Array:
    return np.einsum("id,kd->ik", _unit(vectors), _unit(vectors))
