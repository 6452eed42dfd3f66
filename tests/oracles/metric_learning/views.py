"""Rows one by one, by scipy's log-sum-exp over lists of partners and strangers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


HUGE = {"anchor": [[1e4, -1e4], [-1e4, 1e4]], "positive": [[-1e4, 1e4], [-1e4, 1e4]]}
ZERO = {"anchor": [[0, 0], [1, 2]], "positive": [[1, 2], [0, 0]]}
EQUAL = {"anchor": [[1, 2], [1, 2], [3, -1]], "positive": [[1, 2], [1, 2], [3, -1]]}
EDGES = [Edge(HUGE), Edge(ZERO), Edge(EQUAL)]


@oracles.of(
    "ntxent", draws=[({"N": 7, "D": 5}, {"temperature": 0.5}), ({"N": 3}, {"temperature": 1e-3})], edges=EDGES
)
def ntxent(anchor: Array, positive: Array, *, temperature: float) -> list[float]:
    z = _unit(np.concatenate([anchor, positive]))
    s, n = z @ z.T / temperature, len(anchor)
    return [
        logsumexp([s[i, k] for k in range(2 * n) if k != i]) - s[i, (i + n) % (2 * n)] for i in range(2 * n)
    ]


@oracles.of(
    "info_nce",
    draws=[
        ({"N": 7, "D": 5, "M": 4}, {"temperature": 0.5}),
        ({"N": 1}, {}),
        ({"N": 5}, {"normalize": False}),
    ],
    edges=[
        *EDGES,
        Edge(HUGE, {"normalize": False}),
        # nothing but the own partner to choose from
        Edge(
            {"anchor": [[1, 2]], "positive": [[2, 1]]}, gradients={"anchor": [[0, 0]], "positive": [[0, 0]]}
        ),
        Edge({"anchor": [[1, 2]], "positive": [[2, 1]], "negative": [[1, 2], [0, 0], [-1, -2]]}),
    ],
)
def info_nce(
    anchor: Array, positive: Array, negative: Array | None, *, temperature: float, normalize: bool
) -> list[float]:
    form = _unit if normalize else np.asarray
    a, p, q = form(anchor), form(positive), [] if negative is None else form(negative)
    return [logsumexp([(a[i] @ x - a[i] @ p[i]) / temperature for x in [*p, *q]]) for i in range(len(a))]


@oracles.of("clip", draws=[({"N": 7, "D": 5}, {"temperature": 0.5}), ({"N": 1}, {})], edges=EDGES)
def clip(anchor: Array, positive: Array, *, temperature: float) -> list[float]:
    a, p = _unit(anchor), _unit(positive)
    rows = range(len(a))
    return [
        (
            np.log(sum(np.exp((a[i] @ p[j] - a[i] @ p[i]) / temperature) for j in rows))
            + np.log(sum(np.exp((a[j] @ p[i] - a[i] @ p[i]) / temperature) for j in rows))
        )
        / 2
        for i in rows
    ]


@oracles.of(
    "siglip",
    draws=[({"N": 7, "D": 5}, {"scale": 2.0, "bias": 0.5}), ({"N": 1}, {"scale": 1e4, "bias": -1e4})],
    edges=EDGES,
)
def siglip(anchor: Array, positive: Array, *, scale: float, bias: float) -> list[float]:
    a, p = _unit(anchor), _unit(positive)
    rows = range(len(a))
    return [
        sum(np.logaddexp(0, (-1 if i == j else 1) * (scale * (a[i] @ p[j]) + bias)) for j in rows)
        for i in rows
    ]


@oracles.of(
    "n_pairs",
    draws=[({"N": 7, "D": 5}, {"l2_reg": 0.3}), ({"N": 1}, {"l2_reg": 2.0})],
    edges=[*EDGES, Edge({"anchor": [[1, 2]], "positive": [[2, 1]]}, gradients={"anchor": [[0, 0]]})],
)
def n_pairs(anchor: Array, positive: Array, *, l2_reg: float) -> list[float]:
    return [
        logsumexp([a @ q - a @ p for q in positive]) + l2_reg * (a @ a + p @ p) / 2
        for a, p in zip(anchor, positive, strict=True)
    ]


@oracles.of(
    "angular",
    draws=[({"N": 7, "D": 5}, {"alpha": 55.0}), ({"N": 3}, {"alpha": 5.0}), ({"N": 3}, {"alpha": 88.0})],
    edges=EDGES,
)
def angular(anchor: Array, positive: Array, *, alpha: float) -> list[float]:
    a, p = _unit(anchor), _unit(positive)
    sine, cosine = np.sin(np.deg2rad(alpha)), np.cos(np.deg2rad(alpha))
    t = sine**2 / cosine**2
    # 1 + tan^2 is 1 / cos^2
    exponents = [
        [4 * t * (a[i] @ q + p[i] @ q) - 2 / cosine**2 * (a[i] @ p[i]) for j, q in enumerate(p) if j != i]
        for i in range(len(a))
    ]
    return [logsumexp([0, *row]) for row in exponents]


def _unit(vectors: Array) -> Array:
    return np.array([v / max(np.sqrt(v @ v), 1e-12) for v in vectors])
