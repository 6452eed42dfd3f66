"""Pairs one by one, in plain arithmetic from the definitions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "contrastive",
    draws=[({"N": 7, "D": 5}, {"margin": 3.0, "similar_label": 1})],
    edges=[
        # both kinds of pair at one point: the dissimilar one costs margin^2 / 2 and cannot be parted
        Edge(
            {"anchor": [[1, 2], [1, 2]], "other": [[1, 2], [1, 2]], "targets": [0, 1]},
            gradients={"anchor": [[0, 0], [0, 0]], "other": [[0, 0], [0, 0]]},
        ),
        # exactly at the margin
        Edge(
            {"anchor": [[3, 4]], "other": [[0, 0]], "targets": [1]},
            {"margin": 5.0},
            gradients={"anchor": [[0, 0]], "other": [[0, 0]]},
        ),
        Edge({"anchor": [[1e4, -1e4]], "other": [[-1e4, 1e4]], "targets": [0]}),
        Edge({"anchor": [[1.0]], "other": [[1 + 1e-9]], "targets": [1]}, gradients={"anchor": [[1 - 1e-9]]}),
    ],
)
def contrastive(
    anchor: Array, other: Array, targets: Array, *, margin: float, similar_label: int
) -> list[float]:
    distances = [float(np.linalg.norm(a - o)) for a, o in zip(anchor, other, strict=True)]
    return [
        d**2 / 2 if t == similar_label else max(margin - d, 0) ** 2 / 2
        for d, t in zip(distances, targets, strict=True)
    ]


@oracles.of(
    "cosine_embedding",
    draws=[({"N": 7, "D": 5}, {"margin": 0.3}), ({"N": 7, "D": 1}, {"margin": -0.5})],
    edges=[
        # zero vectors have no angle: their cosine is 0
        Edge({"anchor": [[0, 0], [0, 0]], "other": [[1, 2], [0, 0]], "targets": [1, -1]}),
        # at a right angle, exactly at the margin
        Edge(
            {"anchor": [[1, 0]], "other": [[0, 1]], "targets": [-1]},
            gradients={"anchor": [[0, 0]], "other": [[0, 0]]},
        ),
        Edge({"anchor": [[1e4, -1e4], [1e4, 0]], "other": [[1e4, -1e4], [-1e4, 0]], "targets": [-1, 1]}),
    ],
)
def cosine_embedding(anchor: Array, other: Array, targets: Array, *, margin: float) -> list[float]:
    losses: list[float] = []
    for a, o, t in zip(anchor, other, targets, strict=True):
        lengths = np.sqrt(sum(a * a) * sum(o * o))
        cosine = sum(a * o) / lengths if lengths else 0.0
        losses.append(1 - cosine if t == 1 else max(0, cosine - margin))
    return losses


@oracles.of(
    "hinge_embedding",
    draws=[({"...": (3, 4)}, {"margin": 0.2}), ({"...": ()}, {"margin": -1.0})],
    edges=[
        Edge({"distances": [1.0, 1e4, -1e4], "targets": [-1, -1, 1]}, gradients={"distances": [0, 0, 1]}),
    ],
)
def hinge_embedding(distances: Array, targets: Array, *, margin: float) -> Array:
    return (1 + targets) / 2 * distances + (1 - targets) / 2 * np.clip(margin - distances, 0, None)


@oracles.of(
    "cosine_distance",
    draws=[({"...": (3, 2), "D": 5}, {}), ({"...": (), "D": 7}, {})],
    edges=[
        Edge({"predictions": [[0, 0], [1, 1], [1e4, 0]], "targets": [[1, 1], [0, 0], [-1e4, 0]]}),
        Edge(
            {"predictions": [[1e-150, 0], [0, 0]], "targets": [[2e20, 2e20], [2, 0]]},
            gradients={"predictions": [[float("nan"), -(0.5**0.5) * 1e150], [0, 0]]},
        ),
    ],
)
def cosine_distance(predictions: Array, targets: Array) -> Array:
    lengths = _length(predictions) * _length(targets)
    product = np.einsum("...d,...d->...", predictions, targets)
    return 1 - product / np.where(lengths == 0, 1, lengths)


def _length(vectors: Array) -> Array:
    return np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
