"""The likelihood of a CRF by enumeration of all label sequences."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

TWO = {
    "transitions": [[0.3, -0.4], [0.1, 0.9]],
    "start_transitions": [0.2, -0.5],
    "end_transitions": [-0.1, 0.6],
}


@oracles.of(
    "crf_nll",
    draws=[
        ({"N": 3, "T": 6, "K": 2}, {}),
        ({"N": 2, "T": 1, "K": 4}, {}),
        ({"N": 2, "T": 3, "K": 1}, {}),
    ],
    edges=[
        # masked steps may hold anything
        Edge(
            {
                "emissions": [[[1, 2], [0.5, -1], [np.nan, np.inf]], [[0, 1], [np.nan, 7], [7, np.nan]]],
                **TWO,
                "targets": [[1, 0, -5], [0, 9, 9]],
                "mask": [[True, True, False], [True, False, False]],
            },
            gradients={
                "emissions": [
                    [[np.nan, np.nan], [np.nan, np.nan], [0, 0]],
                    [[np.nan, np.nan], [0, 0], [0, 0]],
                ]
            },
        ),
        Edge(
            {"emissions": [[[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]]], **TWO, "targets": [[1, 1, 1]]},
            gradients={"emissions": [[[1, -1], [0, 0], [np.nan, np.nan]]]},
        ),
        # labels that may not follow each other, and a state that nothing leads to
        Edge(
            {
                "emissions": [[[0.5, 1, 0], [1, 0.2, 3], [0.3, 0.1, 2]]],
                "transitions": [[0.1, 0.2, -np.inf], [-np.inf, 0.4, -np.inf], [0.5, 0.6, -np.inf]],
                "start_transitions": [0.1, -0.3, -np.inf],
                "end_transitions": [0, 0, 0],
                "targets": [[0, 0, 1]],
            },
            gradients={
                "start_transitions": [np.nan, np.nan, 0],
                "emissions": [[[np.nan, np.nan, 0], [np.nan, np.nan, 0], [np.nan, np.nan, 0]]],
                "transitions": [[np.nan, np.nan, 0], [0, np.nan, 0], [0, 0, 0]],
            },
        ),
    ],
)
def crf_nll(
    emissions: Array,
    transitions: Array,
    start_transitions: Array,
    end_transitions: Array,
    targets: Array,
    mask: Array | None,
) -> list[float]:
    losses: list[float] = []
    for n, labels in enumerate(targets):
        length = len(labels) if mask is None else int(mask[n].sum())

        def score(path: Any, n: int = n) -> float:
            total = start_transitions[path[0]] + end_transitions[path[-1]]
            total += sum(emissions[n, t, k] for t, k in enumerate(path))
            return float(total + sum(transitions[i, j] for i, j in itertools.pairwise(path)))

        paths = itertools.product(range(emissions.shape[2]), repeat=length)
        losses.append(float(logsumexp([score(path) for path in paths])) - score(labels[:length]))
    return losses
