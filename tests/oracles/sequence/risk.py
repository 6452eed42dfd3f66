"""Expected costs over the candidates that count, and BLEU from counters of n-grams."""

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "minimum_risk",
    draws=[({"N": 4, "K": 6}, {"alpha": 1.0}), ({"N": 1, "K": 1}, {}), ({"N": 3, "K": 2}, {"alpha": 30.0})],
    edges=[
        Edge(
            {
                "log_probabilities": [[np.nan, -1, -2], [-1e4, 0, 5]],
                "costs": [[np.nan, 0.5, 0.1], [1, 2, np.inf]],
                "mask": [[False, True, True], [True, True, False]],
            },
            {"alpha": 1.0},
            {"log_probabilities": [[0, np.nan, np.nan], [0, 0, 0]]},
        ),
        # an impossible candidate
        Edge(
            {"log_probabilities": [[-np.inf, -1]], "costs": [[3, 5]]},
            gradients={"log_probabilities": [[0, 0]]},
        ),
    ],
)
def minimum_risk(log_probabilities: Array, costs: Array, mask: Array | None, *, alpha: float) -> list[float]:
    kept = np.ones(costs.shape, dtype=bool) if mask is None else mask
    return [
        expected(lp[k], cost[k], alpha) for lp, cost, k in zip(log_probabilities, costs, kept, strict=True)
    ]


def expected(log_probabilities: Array, costs: Array, alpha: float) -> float:
    """Each candidate's share is one over the sum of how much more probable the others are."""
    total = 0.0
    for own, cost in zip(log_probabilities, costs, strict=True):
        if own > -np.inf:
            with np.errstate(over="ignore"):
                total += cost / np.exp(alpha * (log_probabilities - own)).sum()
    return total


@oracles.of(
    "expected_bleu",
    draws=[
        ({"N": 3, "K": 4, "T": 9, "S": 7}, {"alpha": 0.005}),
        ({"N": 3, "K": 2, "T": 2, "S": 7}, {"max_order": 8}),
        ({"N": 3, "K": 2, "T": 7, "S": 1}, {"max_order": 2}),
        ({"N": 2, "K": 1, "T": 12, "S": 12}, {"max_order": 1}),
    ],
    edges=[
        # perfect at any length, empty, nothing in common, a repeated word, padding that would match
        Edge(
            {
                "log_probabilities": [[-1, -2, -3, -4, -5, -6]],
                "candidates": [
                    [[0, 0, 9, 9], [5, 5, 5, 5], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]
                ],
                "candidate_lengths": [[2, 0, 4, 1, 1, 4]],
                "targets": [[0, 0, 0, 1]],
                "target_lengths": [2],
            },
            {"alpha": 1.0},
        ),
        # no length fixed at all: one candidate teaches nothing
        Edge(
            {
                "log_probabilities": [[-3]],
                "candidates": [[[7, 8, 7, 8, 7]]],
                "candidate_lengths": [[5]],
                "targets": [[7, 8, 7]],
                "target_lengths": [3],
            },
            gradients={"log_probabilities": [[0]]},
        ),
    ],
)
def expected_bleu(
    log_probabilities: Array,
    candidates: Array,
    candidate_lengths: Array,
    targets: Array,
    target_lengths: Array,
    *,
    alpha: float,
    max_order: int,
) -> dict[str, Array]:
    scores = np.zeros(log_probabilities.shape)
    for n, k in np.ndindex(*scores.shape):
        candidate = candidates[n, k, : candidate_lengths[n, k]].tolist()
        scores[n, k] = bleu(candidate, targets[n, : target_lengths[n]].tolist(), max_order)
    losses = [expected(lp, 1 - s, alpha) for lp, s in zip(log_probabilities, scores, strict=True)]
    return {"loss": np.array(losses), "bleu": scores}


def bleu(candidate: list[int], reference: list[int], max_order: int) -> float:
    if not set(candidate) & set(reference):
        return 0.0
    score = 1.0
    for n in range(1, max_order + 1):
        grams, wanted = ngrams(candidate, n), ngrams(reference, n)
        matches, count = (grams & wanted).total(), grams.total()
        score *= matches / count if n == 1 else (matches + 1) / (count + 1)
    brevity = 1.0 if len(candidate) > len(reference) else math.exp(1 - len(reference) / len(candidate))
    return brevity * score ** (1 / max_order)


def ngrams(tokens: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
