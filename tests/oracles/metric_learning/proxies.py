"""Rows and proxies one by one, distances from cosines, sums in plain logarithms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


ALIGNED = {
    "embeddings": [[2, 0, 0], [0, 0.5, 0], [0, -3, 0], [0, 0, 0], [1e4, 1e4, -1e4]],
    "prototypes": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    "targets": [0, 0, 1, 1, 0],
}
TWO_CENTRES = {
    **ALIGNED,
    "prototypes": [[[1, 0, 0], [1, 1, 0]], [[0, 1, 0], [0, 2, 0]], [[0, 0, 1], [0, 0, 0]]],
}
LARGE: Any = {"N": 9, "C": 5, "D": 6}


@oracles.of(
    "center",
    draws=[(LARGE, {}), ({"C": 1}, {})],
    edges=[
        Edge(ALIGNED),
        Edge(
            {"embeddings": [[3, 4], [1, 2]], "prototypes": [[0, 0], [1, 2]], "targets": [0, 1]},
            gradients={"embeddings": [[3, 4], [0, 0]], "prototypes": [[-3, -4], [0, 0]]},
        ),
    ],
)
def center(embeddings: Array, prototypes: Array, targets: Array) -> list[Any]:
    return [np.linalg.norm(x - prototypes[y]) ** 2 / 2 for x, y in zip(embeddings, targets, strict=True)]


@oracles.of("proxy_nca", draws=[(LARGE, {"softmax_scale": 9.0}), ({"C": 1}, {})], edges=[Edge(ALIGNED)])
def proxy_nca(embeddings: Array, prototypes: Array, targets: Array, *, softmax_scale: float) -> list[Any]:
    losses: list[Any] = []
    for x, y in zip(map(_unit, embeddings), targets, strict=True):
        squares = np.array([x @ x + w @ w - 2 * (x @ w) for w in map(_unit, prototypes)])
        losses.append(-np.log(softmax(-softmax_scale * squares)[y]))
    return losses


@oracles.of(
    "proxy_anchor",
    draws=[(LARGE, {"margin": 0.5, "alpha": 3.0}), ({"N": 1, "C": 4}, {}), ({"C": 1}, {})],
    edges=[Edge(ALIGNED)],
)
def proxy_anchor(
    embeddings: Array, prototypes: Array, targets: Array, *, margin: float, alpha: float
) -> float:
    attraction: list[Any] = []
    repulsion: list[Any] = []
    for c, w in enumerate(prototypes):
        s = [_unit(x) @ _unit(w) for x in embeddings]
        own = [np.exp(-alpha * (v - margin)) for v, y in zip(s, targets, strict=True) if y == c]
        foreign = [np.exp(alpha * (v + margin)) for v, y in zip(s, targets, strict=True) if y != c]
        attraction += [np.log(1 + sum(own))] if own else []
        repulsion.append(np.log(1 + sum(foreign)))
    return float(np.mean(attraction) + np.mean(repulsion))


@oracles.of(
    "soft_triple",
    draws=[
        ({**LARGE, "K": 4}, {"la": 3.0, "gamma": 0.5, "margin": 0.3}),
        ({**LARGE, "K": 1}, {"gamma": 1e-3}),
    ],
    edges=[Edge(TWO_CENTRES)],
)
def soft_triple(
    embeddings: Array, prototypes: Array, targets: Array, *, la: float, gamma: float, margin: float
) -> list[Any]:
    losses: list[Any] = []
    for x, y in zip(embeddings, targets, strict=True):
        s = np.array([[_unit(x) @ _unit(w) for w in centres] for centres in prototypes])
        logits = la * np.average(s, axis=1, weights=softmax(s / gamma, axis=1))
        logits[y] -= la * margin
        losses.append(logsumexp(logits) - logits[y])
    return losses


def _unit(vector: Array) -> Array:
    return vector / max(np.sqrt(vector @ vector), 1e-12)
