"""Contrastive losses of nodes by einsum and loops, with log-sigmoids as logaddexp."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "dgi",
    draws=[({"N": 3, "D": 2}, {}), ({"N": 1, "D": 1}, {})],
    edges=[
        # h W s, not s W h; the second node is confidently wrong on both sides
        Edge(
            {
                "positive": [[1.0, 0.0], [-1e4, 0.0]],
                "negative": [[0.0, 1.0], [1e4, 0.0]],
                "summary": [0.0, 1.0],
                "weights": [[0.0, 2.0], [0.0, 0.0]],
            },
            gradients={"positive": [[-2 / (1 + np.exp(2)), 0], [-2, 0]], "negative": [[1, 0], [2, 0]]},
        )
    ],
)
def dgi(positive: Array, negative: Array, summary: Array, weights: Array) -> Array:
    real = np.einsum("nd,de,e->n", positive, weights, summary)
    fake = np.einsum("nd,de,e->n", negative, weights, summary)
    return np.logaddexp(0, -real) + np.logaddexp(0, fake)


@oracles.of(
    "skipgram_negative_sampling",
    draws=[
        ({"N": 3, "K": 5, "D": 2}, {"negative_weight": 0.2}),
        ({"N": 1, "K": 1}, {"negative_weight": 0.0}),
    ],
    edges=[
        Edge(
            {"anchor": [[1.0]], "positive": [[-1e4]], "negative": [[[1e4], [-1e4]]]},
            gradients={"anchor": [[2e4]], "positive": [[-1]], "negative": [[[1], [0]]]},
        )
    ],
)
def skipgram_negative_sampling(
    anchor: Array, positive: Array, negative: Array, *, negative_weight: float
) -> list[float]:
    return [
        float(np.logaddexp(0, -(a @ p)) + negative_weight * sum(np.logaddexp(0, a @ n) for n in others))
        for a, p, others in zip(anchor, positive, negative, strict=True)
    ]


@oracles.of(
    "scaled_cosine_error",
    draws=[
        ({"...": (2, 3), "D": 5}, {"gamma": 1.0}),
        ({"...": (), "D": 2}, {"gamma": 1.5}),
        ({"...": (3,), "D": 1}, {}),
    ],
    edges=[
        # equal directions, opposite ones, and a right angle
        Edge(
            {
                "predictions": [[1.0, 2.0, 3.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]],
                "targets": [[2.0, 4.0, 6.0], [-3.0, 0.0, 0.0], [5.0, 0.0, 0.0]],
            },
            gradients={"predictions": [[0, 0, 0], [0, 0, 0], [-1.5, 0, 0]]},
        ),
        Edge(
            {"predictions": [[0.1, 0.2, 0.3]], "targets": [[0.1, 0.2, 0.3]]},
            {"gamma": 1.5},
            gradients={"predictions": [[0, 0, 0]]},
        ),
        # a zero vector is at distance 1
        Edge({"predictions": [[0.0, 0.0]], "targets": [[1.0, 0.0]]}),
    ],
)
def scaled_cosine_error(predictions: Array, targets: Array, *, gamma: float) -> Array:
    lengths = [np.sqrt((x * x).sum(-1))[..., None] for x in (predictions, targets)]
    u, v = (
        predictions / np.where(lengths[0] == 0, 1, lengths[0]),
        targets / np.where(lengths[1] == 0, 1, lengths[1]),
    )
    # |u - v|^2 = |u|^2 + |v|^2 - 2 cos
    distance = (((u - v) ** 2).sum(-1) + 2 - (u * u).sum(-1) - (v * v).sum(-1)) / 2
    return np.maximum(distance, 0) ** gamma


@oracles.of(
    "self_adversarial",
    draws=[
        ({"N": 3, "K": 5}, {"margin": 2.0, "adversarial_temperature": 0.5}),
        ({"N": 2, "K": 1}, {"margin": -1.0, "adversarial_temperature": 0.0}),
    ],
    edges=[
        # uniform weights, and then all weight on one: it is a constant to the gradient
        Edge(
            {"real_scores": [0.0], "fake_scores": [[0.0, 1e4]]},
            {"margin": 0.0, "adversarial_temperature": 0.0},
            gradients={"real_scores": [-0.25], "fake_scores": [[0.125, 0.25]]},
        ),
        Edge(
            {"real_scores": [-1e4], "fake_scores": [[1e4, -1e4]]},
            gradients={"real_scores": [-0.5], "fake_scores": [[0.5, 0]]},
        ),
        Edge(
            {"real_scores": [0.0], "fake_scores": [[0.0, np.log(3.0)]]},
            {"margin": 0.0},
            gradients={"fake_scores": [[0.25 * 0.5 / 2, 0.75 * 0.75 / 2]]},
        ),
    ],
)
def self_adversarial(
    real_scores: Array, fake_scores: Array, *, margin: float, adversarial_temperature: float
) -> list[float]:
    found: list[float] = []
    for real, fakes in zip(real_scores, fake_scores, strict=True):
        shares = np.exp(adversarial_temperature * (fakes - fakes.max()))
        fake = np.average(np.logaddexp(0, margin + fakes), weights=shares)
        found.append(float(np.logaddexp(0, -(margin + real)) + fake) / 2)
    return found
