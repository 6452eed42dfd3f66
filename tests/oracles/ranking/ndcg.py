"""NDCG by ranking one list after the other, its soft versions by explicit ranks and matrices."""

from itertools import chain, permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.ranking.items import PADDED, dcg, lists, ranked
from tests.oracles.ranking.lists import DRAWS, HUGE, MASKED_ARE_ZERO

oracles = Oracles()
Array = NDArray[Any]

NOTHING = {"scores": [[0.5, -0.5]], "targets": [[0.0, 0.0]]}
BEYOND = {"scores": [[0.5, 0.1, 0.7]], "targets": [[2000.0, 1999.0, 0.0]]}
ONE = {"scores": [[-3.0]], "targets": [[2.0]]}
GROUPS = {
    "scores": [[0.5, -0.0, 0.5, 0.0, 2.0, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]],
    "targets": [[3.0, 1.0, 0.0, 2.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0, 4.0, 0.5]],
}
TIED = {"scores": [[0.5, 0.5, 0.5]], "targets": [[0.0, 1.0, 2.0]]}


@oracles.of(
    "approx_ndcg",
    draws=[(DRAWS, {"temperature": 0.1}), ({"N": 2, "L": 1}, {})],
    edges=[
        Edge(HUGE, gradients={"scores": [[0, 0, 0], [0, np.nan, np.nan]]}),
        Edge(PADDED, gradients=MASKED_ARE_ZERO),
        Edge(NOTHING, gradients={"scores": [[0, 0]]}),
        Edge(BEYOND),
        Edge(ONE, gradients={"scores": [[0]]}),
        Edge(TIED),
    ],
)
def approx_ndcg(
    scores: Array, targets: Array, mask: Array | None, *, temperature: float
) -> dict[str, list[float]]:
    def gain(s: list[float], gains: list[float]) -> float:
        ranks = [
            1 + sum(expit((s[j] - s[i]) / temperature) for j in range(len(s)) if j != i)
            for i in range(len(s))
        ]
        return sum(g / np.log2(1 + rank) for g, rank in zip(gains, ranks, strict=True))

    return _shortfalls(scores, targets, mask, None, gain)


@oracles.of(
    "neural_ndcg",
    draws=[
        (DRAWS, {"temperature": 0.3, "k": 3}),
        (DRAWS, {"max_iter": 0}),
        (DRAWS, {"max_iter": 1, "k": 20}),
        ({"N": 2, "L": 1}, {}),
        ({"N": 1, "L": 30}, {"max_iter": 200, "temperature": 0.05}),
    ],
    edges=[
        Edge(HUGE, gradients={"scores": [[0, 0, 0], [np.nan] * 3]}),
        Edge(PADDED, gradients=MASKED_ARE_ZERO),
        Edge(PADDED, {"max_iter": 0, "k": 2}, gradients=MASKED_ARE_ZERO),
        Edge(NOTHING, gradients={"scores": [[0, 0]]}),
        Edge(BEYOND),
        Edge(ONE, gradients={"scores": [[0]]}),
        Edge(TIED),
    ],
)
def neural_ndcg(
    scores: Array, targets: Array, mask: Array | None, *, temperature: float, k: int | None, max_iter: int
) -> dict[str, list[float]]:
    def gain(s: list[float], gains: list[float]) -> float:
        n = len(s)
        away = [sum(abs(score - other) for other in s) for score in s]
        matrix = np.array(
            [
                softmax([((n + 1 - 2 * r) * s[j] - away[j]) / temperature for j in range(n)])
                for r in range(1, n + 1)
            ]
        )
        for _ in range(max_iter):
            matrix = matrix / matrix.sum(axis=0, keepdims=True)
            matrix = matrix / matrix.sum(axis=1, keepdims=True)
        return dcg(list(matrix @ np.array(gains)), k)

    return _shortfalls(scores, targets, mask, k, gain)


@oracles.of(
    "ndcg",
    tolerance=1e-12,
    draws=[
        (DRAWS, {"k": 3}),
        (DRAWS, {"k": 20, "gain": "linear"}),
        (DRAWS, {"k": 1, "gain": "linear"}),
        ({"N": 2, "L": 1}, {}),
    ],
    edges=[
        Edge(HUGE),
        Edge(PADDED),
        Edge(NOTHING),
        Edge(BEYOND),
        Edge(ONE),
        Edge(TIED),
        Edge(TIED, {"gain": "linear"}),
        *(
            Edge(inputs, {"ties": "average", **params})
            for inputs in (HUGE, PADDED, NOTHING, BEYOND, ONE, TIED, GROUPS)
            for params in ({}, {"k": 2}, {"k": 1, "gain": "linear"})
        ),
        # one of minus infinity is not equal to one that is excluded
        Edge(
            {
                "scores": [[-np.inf, 0.0, -np.inf, -np.inf]],
                "targets": [[2.0, 9.0, 0.0, 5.0]],
                "mask": [[True, False, True, False]],
            },
            {"ties": "average"},
        ),
        # a valid item of minus infinity still ranks above excluded ones
        Edge({"scores": [[0.0, -np.inf]], "targets": [[9.0, 1.0]], "mask": [[False, True]]}),
        # perfect
        Edge({"scores": [[3.0, 2.0, 1.0]], "targets": [[2.0, 2.0, 0.0]]}),
    ],
)
def ndcg(
    scores: Array, targets: Array, mask: Array | None, *, k: int | None, gain: str, ties: str
) -> dict[str, list[float]]:
    def value(s: list[float], gains: list[float]) -> float:
        orders = _orders(s) if ties == "average" else [ranked(s)]
        return float(np.mean([dcg([gains[item] for item in order], k) for order in orders]))

    return _shortfalls(scores, targets, mask, k, value, linear=gain == "linear")


def _orders(s: list[float]) -> list[list[int]]:
    """Return every order of the items in which no item is behind one of a lower score."""
    if any(map(np.isnan, s)):
        return [ranked(s)]
    groups = [[item for item in ranked(s) if s[item] == score] for score in sorted(set(s), reverse=True)]
    return [list(chain(*order)) for order in product(*map(permutations, groups))]


def _shortfalls(
    scores: Array, targets: Array, mask: Array | None, k: int | None, gain: Any, linear: bool = False
) -> dict[str, list[float]]:
    """Return 1 - gain/ideal of each list that has a relevant item."""
    found: list[float] = []
    relevant: list[float] = []
    for s, y in lists(scores, targets, mask):
        top = max(y, default=0.0)
        gains = y if linear else [2.0 ** (label - top) - 2.0**-top for label in y]
        relevant.append(float(top > 0))
        found.append(1 - gain(s, gains) / dcg(sorted(gains, reverse=True), k) if top > 0 else 0.0)
    return {"loss": found, "divisor": relevant}
