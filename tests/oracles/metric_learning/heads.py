"""Angles by arccos in 40 digits and their margins by the definitions, row by row."""

from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


# a row at its own class, one at another class, one opposite to its own, one that is zero
ALIGNED = {
    "embeddings": [[2, 0, 0], [0, 0.5, 0], [0, -3, 0], [0, 0, 0], [1e4, 1e4, -1e4]],
    "prototypes": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    "targets": [0, 0, 1, 1, 2],
}
# so near to the centre, and to its opposite, that the rounded cosine is 1 and -1
NEARLY = {
    "embeddings": [[1, 1e-9], [-3, 1e-9]],
    "prototypes": [[2, 0], [0.7, 0.7]],
    "targets": [0, 0],
}
PUSH = float(expit(-np.cos(0.5)))
"""The softmax of a row at its centre, widened by 0.5, for another class at a right angle."""
TWO_CENTRES = {
    **ALIGNED,
    "prototypes": [[[1, 0, 0], [1, 1, 0]], [[0, 1, 0], [0, 2, 0]], [[0, 0, 1], [0, 0, 0]]],
}
LARGE: Any = {"N": 9, "C": 5, "D": 6}


@oracles.of(
    "normalized_softmax", draws=[(LARGE, {"temperature": 0.5}), ({"C": 1}, {})], edges=[Edge(ALIGNED)]
)
def normalized_softmax(
    embeddings: Array, prototypes: Array, targets: Array, *, temperature: float
) -> list[float]:
    return [
        logsumexp(row / temperature) - row[y] / temperature
        for row, y in zip(_cosines(embeddings, prototypes), targets, strict=True)
    ]


@oracles.of(
    "arcface",
    draws=[(LARGE, {"margin": 1.5, "scale": 5.0}), (LARGE, {"margin": 0.0}), (LARGE, {"margin": np.pi / 2})],
    edges=[
        # at its centre, where the angle has a tip and no slope, a row is only pushed by the other class
        Edge(
            {"embeddings": [[2, 0]], "prototypes": [[1, 0], [0, 1]], "targets": [0]},
            {"scale": 1.0},
            gradients={"embeddings": [[0, PUSH / 2]], "prototypes": [[0, 0], [PUSH, 0]]},
        ),
        # the same but for rounding: the normalised row and centre differ in their last digits
        Edge(
            {"embeddings": [[0.51, 0.68]], "prototypes": [[0.3, 0.4], [-0.4, 0.3]], "targets": [0]},
            {"scale": 1.0},
            gradients={
                "embeddings": [[-0.8 * PUSH / 0.85, 0.6 * PUSH / 0.85]],
                "prototypes": [[0, 0], [1.2 * PUSH, 1.6 * PUSH]],
            },
        ),
        Edge(ALIGNED),
        Edge(ALIGNED, {"margin": 0.0}),
        Edge(NEARLY),
    ],
)
def arcface(
    embeddings: Array, prototypes: Array, targets: Array, *, margin: float, scale: float
) -> list[float]:
    return _arcface(_cosines(embeddings, prototypes), _angles(embeddings, prototypes), targets, margin, scale)


@oracles.of(
    "sub_center_arcface",
    draws=[({**LARGE, "K": 4}, {"margin": 1.5, "scale": 5.0}), ({**LARGE, "K": 1}, {})],
    edges=[Edge(TWO_CENTRES)],
)
def sub_center_arcface(
    embeddings: Array, prototypes: Array, targets: Array, *, margin: float, scale: float
) -> list[float]:
    centres = [prototypes[:, k] for k in range(prototypes.shape[1])]
    cosines = np.max([_cosines(embeddings, c) for c in centres], axis=0)
    angles = np.min([_angles(embeddings, c) for c in centres], axis=0)
    return _arcface(cosines, angles, targets, margin, scale)


def _arcface(cosines: Array, angles: Array, targets: Array, margin: float, scale: float) -> list[float]:
    losses: list[float] = []
    for row, thetas, y in zip(cosines, angles, targets, strict=True):
        theta = thetas[y]
        past = theta > np.pi - margin
        own = row[y] - margin * np.sin(margin) if past else np.cos(theta + margin)
        losses.append(_softmax_loss(scale * row, scale * own, y))
    return losses


@oracles.of(
    "cosface",
    draws=[(LARGE, {"margin": 0.1, "scale": 5.0}), (LARGE, {"margin": 0.0})],
    edges=[Edge(ALIGNED)],
)
def cosface(
    embeddings: Array, prototypes: Array, targets: Array, *, margin: float, scale: float
) -> list[float]:
    return [
        _softmax_loss(scale * row, scale * (row[y] - margin), y)
        for row, y in zip(_cosines(embeddings, prototypes), targets, strict=True)
    ]


@oracles.of(
    "sphereface",
    draws=[(LARGE, {"margin": m, "scale": 2.0}) for m in (1, 2, 3, 7)],
    edges=[
        Edge(
            {"embeddings": [[2, 0]], "prototypes": [[1, 0], [0, 1]], "targets": [0]},
            gradients={
                "embeddings": [[-expit(-2), expit(-2)]],
                "prototypes": [[0, 0], [2 * expit(-2), 0]],
            },
        ),
        Edge(ALIGNED),
        Edge(ALIGNED, {"margin": 1}),
        Edge(NEARLY),
    ],
)
def sphereface(
    embeddings: Array, prototypes: Array, targets: Array, *, margin: int, scale: float
) -> list[float]:
    losses: list[float] = []
    cosines, angles = _cosines(embeddings, prototypes), _angles(embeddings, prototypes)
    for x, row, thetas, y in zip(embeddings, cosines, angles, targets, strict=True):
        theta = thetas[y]
        # the k-th of `margin` pieces, on which the cosine is flipped so that it keeps falling
        k = next(k for k in range(margin) if theta <= (k + 1) * np.pi / margin or k == margin - 1)
        own = (-1) ** k * np.cos(margin * theta) - 2 * k
        length = scale * np.sqrt(x @ x)
        losses.append(_softmax_loss(length * row, length * own, y))
    return losses


def _softmax_loss(logits: Array, own: float, y: int) -> float:
    changed = [own if c == y else logit for c, logit in enumerate(logits)]
    return float(logsumexp(changed) - own)


def _angles(rows: Array, columns: Array) -> Array:
    with mpmath.workdps(40):
        return np.array([[_angle(mpmath.matrix(x), mpmath.matrix(w)) for w in columns] for x in rows])


def _angle(x: Any, w: Any) -> float:
    product = (x.T * w)[0]
    lengths = [max(mpmath.norm(v), mpmath.mpf("1e-12")) for v in (x, w)]
    return float(mpmath.acos(max(-1, min(1, product / (lengths[0] * lengths[1])))))


def _cosines(rows: Array, columns: Array) -> Array:
    return np.array([[_unit(x) @ _unit(w) for w in columns] for x in rows])


def _unit(vector: Array) -> Array:
    return vector / max(np.sqrt(vector @ vector), 1e-12)
