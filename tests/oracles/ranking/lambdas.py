"""Weighed pairs as the NDCG before and after a swap of two items, and by the definition of each scheme."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.ranking.items import PADDED, dcg, lists, ranked
from tests.oracles.ranking.lists import ALIKE, DRAWS, HUGE, MASKED_ARE_ZERO

oracles = Oracles()
Array = NDArray[Any]

SCHEMES = ("ndcg_loss2pp", "ndcg_loss2", "lambdarank", "ranknet")
EDGES = [
    Edge(HUGE),
    Edge(PADDED, gradients=MASKED_ARE_ZERO),
    Edge(PADDED, {"k": 1}, gradients={"scores": [[0] * 4] * 3}),
    Edge(ALIKE, gradients={"scores": [[0, 0, 0]]}),
    # equal scores are ranked by index
    Edge({"scores": [[0.5, 0.5, 0.5]], "targets": [[0.0, 1.0, 2.0]]}),
    # nothing relevant
    Edge({"scores": [[0.5, -0.5]], "targets": [[0.0, 0.0]]}, gradients={"scores": [[0, 0]]}),
    # a gain of 2^2000 is beyond float64
    Edge({"scores": [[0.5, 0.1, 0.7]], "targets": [[2000.0, 1999.0, 0.0]]}),
]


@oracles.of(
    "lambda_loss",
    draws=[
        *[(DRAWS, {"weighing_scheme": scheme, "k": k}) for scheme in SCHEMES for k in (1, 3, 9)],
        (DRAWS, {"sigma": 0.5, "mu": 2.0}),
        ({"N": 2, "L": 1}, {}),
    ],
    edges=EDGES,
)
def lambda_loss(
    scores: Array,
    targets: Array,
    mask: Array | None,
    *,
    weighing_scheme: str,
    k: int | None,
    sigma: float,
    mu: float,
) -> list[float]:
    return [_weighed(s, y, weighing_scheme, k, sigma, mu, 2.0) for s, y in lists(scores, targets, mask)]


@oracles.of("lambdarank", draws=[(DRAWS, {"k": 3, "sigma": 2.0}), (DRAWS, {"k": 20})], edges=EDGES)
def lambdarank(
    scores: Array, targets: Array, mask: Array | None, *, k: int | None, sigma: float
) -> list[float]:
    return [_weighed(s, y, "lambdarank", k, sigma, 0.0, np.e) for s, y in lists(scores, targets, mask)]


def _weighed(
    s: list[float], y: list[float], scheme: str, k: int | None, sigma: float, mu: float, base: float
) -> float:
    """Sum the weighed logistic costs of one list's pairs."""
    order = ranked(s)
    top = max(y, default=0.0)
    gains = [2.0 ** (y[item] - top) - 2.0**-top for item in order]
    ideal = dcg(sorted(gains, reverse=True), k)
    total = 0.0
    for i, first in enumerate(order[:k]):
        for j, second in enumerate(order[:k]):
            if y[first] > y[second]:
                swapped = list(gains)
                swapped[i], swapped[j] = gains[j], gains[i]
                swap = abs(dcg(gains, None) - dcg(swapped, None)) / ideal
                apart, nearer = 1 / np.log2(2 + abs(i - j)), 1 / np.log2(1 + abs(i - j))
                step = (nearer - apart) * abs(gains[i] - gains[j]) / ideal
                weight = {
                    "ndcg_loss2pp": mu * step + swap,
                    "ndcg_loss2": step,
                    "lambdarank": swap,
                    "ranknet": 1.0,
                }[scheme]
                total += weight * np.logaddexp(0, -sigma * (s[first] - s[second])) / np.log(base)
    return total
