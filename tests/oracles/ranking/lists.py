"""Losses of lists as loops over the pairs, the items or the remaining candidates of each list."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.ranking.items import PADDED, lists, ranked

oracles = Oracles()
Array = NDArray[Any]

DRAWS = {"N": 3, "L": 7}
HUGE = {"scores": [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], "targets": [[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]}
ALIKE = {"scores": [[0.3, -0.2, 0.9]], "targets": [[2.0, 2.0, 2.0]]}


def unmasked(gradient: list[list[float]]) -> list[list[float]]:
    """Return a gradient of `PADDED` in which only the zeros of masked items are compared."""
    rows = zip(gradient, PADDED["mask"], strict=True)
    return [[np.nan if valid else g for g, valid in zip(row, mask, strict=True)] for row, mask in rows]


MASKED_ARE_ZERO = {"scores": unmasked([[0.0] * 4] * 3)}


@oracles.of(
    "ranknet",
    draws=[(DRAWS, {"sigma": 2.0}), ({"N": 2, "L": 1}, {})],
    edges=[
        Edge(HUGE, gradients={"scores": [[0, -1, 1], [-2, 0.5, 1.5]]}),
        Edge(PADDED, gradients=MASKED_ARE_ZERO),
        Edge(ALIKE, gradients={"scores": [[0, 0, 0]]}),
        # an item that is to be left out by a score of minus infinity costs nothing below the others
        Edge({"scores": [[-np.inf, 0.5, 0.0]], "targets": [[0.0, 1.0, 0.0]]}),
    ],
)
def ranknet(scores: Array, targets: Array, mask: Array | None, *, sigma: float) -> dict[str, Any]:
    return _pairs(scores, targets, mask, lambda lead: np.logaddexp(0.0, -sigma * lead))


@oracles.of(
    "pairwise_hinge",
    draws=[(DRAWS, {"margin": 0.4}), ({"N": 2, "L": 1}, {})],
    edges=[
        Edge(HUGE, gradients={"scores": [[0, -1, 1], [-2, 0, 2]]}),
        Edge(PADDED, gradients=MASKED_ARE_ZERO),
        Edge(ALIKE, gradients={"scores": [[0, 0, 0]]}),
        # exactly at the margin
        Edge({"scores": [[2.0, 1.0]], "targets": [[1.0, 0.0]]}, gradients={"scores": [[0, 0]]}),
    ],
)
def pairwise_hinge(scores: Array, targets: Array, mask: Array | None, *, margin: float) -> dict[str, Any]:
    return _pairs(scores, targets, mask, lambda lead: max(0.0, margin - lead))


@oracles.of(
    "listnet",
    draws=[(DRAWS, {"temperature": 0.2}), ({"N": 2, "L": 1}, {"temperature": 3.0})],
    edges=[Edge(HUGE), Edge(PADDED, gradients=MASKED_ARE_ZERO), Edge(ALIKE)],
)
def listnet(scores: Array, targets: Array, mask: Array | None, *, temperature: float) -> list[float]:
    return [
        sum(
            share * (logsumexp(s) - score)
            for share, score in zip(softmax(np.array(y) / temperature), s, strict=True)
        )
        if s
        else 0.0
        for s, y in lists(scores, targets, mask)
    ]


@oracles.of(
    "ranking_softmax",
    draws=[(DRAWS, {}), ({"N": 2, "L": 1}, {})],
    edges=[
        Edge(HUGE),
        Edge(PADDED, gradients=MASKED_ARE_ZERO),
        Edge({"scores": [[0.3, 1e4]], "targets": [[0.0, 0.0]]}, gradients={"scores": [[0, 0]]}),
    ],
)
def ranking_softmax(scores: Array, targets: Array, mask: Array | None) -> list[float]:
    return [
        sum(weight * (logsumexp(s) - score) for weight, score in zip(y, s, strict=True))
        for s, y in lists(scores, targets, mask)
    ]


@oracles.of(
    "listmle",
    draws=[(DRAWS, {}), ({"N": 2, "L": 1}, {})],
    edges=[
        Edge(HUGE, gradients={"scores": [[0, -1, 1], [-1, 0, 1]]}),
        Edge(PADDED, gradients=MASKED_ARE_ZERO),
        # equal labels keep their order: the first is to come first
        Edge({"scores": [[0.0, 0.0]], "targets": [[1.0, 1.0]]}, gradients={"scores": [[-0.5, 0.5]]}),
        # large scores that are alike
        Edge(
            {"scores": [[1e4, 1e4, 1e4]], "targets": [[2.0, 1.0, 0.0]]},
            gradients={"scores": [[-2 / 3, -1 / 6, 5 / 6]]},
        ),
    ],
)
def listmle(scores: Array, targets: Array, mask: Array | None) -> list[float]:
    found: list[float] = []
    for s, y in lists(scores, targets, mask):
        waiting = [s[item] for item in ranked(y)]
        # each is drawn first of those that still wait
        found.append(sum(logsumexp(waiting[place:]) - waiting[place] for place in range(len(waiting))))
    return found


def _pairs(scores: Array, targets: Array, mask: Array | None, cost: Any) -> dict[str, Any]:
    """Sum a cost of the lead over the pairs of each list, and count them."""
    costs = [
        [cost(s[i] - s[j]) for i in range(len(s)) for j in range(len(s)) if y[i] > y[j]]
        for s, y in lists(scores, targets, mask)
    ]
    return {"loss": [float(sum(pairs)) for pairs in costs], "divisor": [len(pairs) for pairs in costs]}
