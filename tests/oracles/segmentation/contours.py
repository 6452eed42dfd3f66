"""Contours and centre lines by definition: distances by brute force, morphology pixel by pixel."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.segmentation.pixels import class_maps, score, unbatched

oracles = Oracles()
Array = NDArray[Any]

FLAT: list[Any] = [
    ({"N": 2, "C": 3, "H": 6, "W": 5}, {"include_background": False}),
    ({"N": 2, "C": 2, "H": 1, "W": 7}, {"mode": "multilabel"}),
    ({"N": 3, "H": 7, "W": 6}, {"mode": "binary"}),
]
ANY: list[Any] = [
    ({"N": 2, "C": 3, "...": (5, 4)}, {"include_background": False}),
    ({"N": 2, "C": 2, "...": (3, 3, 2)}, {"mode": "multilabel"}),
    ({"N": 3, "...": (9,)}, {"mode": "binary"}),
    ({"N": 3, "C": 2, "...": ()}, {"mode": "multilabel"}),
]
PLANE = [[[2, -1, 0], [1, 3, -2], [0.5, -1, -3]]]
EMPTY_OR_FULL = [
    Edge({"logits": PLANE, "targets": [[[0] * 3] * 3]}, {"mode": "binary"}),
    Edge({"logits": PLANE, "targets": [[[1] * 3] * 3]}, {"mode": "binary"}),
    Edge({"logits": [[[1e4, -1e4, -1e4]] * 3], "targets": [[[0, 0, 1]] * 3]}, {"mode": "binary"}),
    Edge({"logits": [[[-1e4] * 3] * 3], "targets": [[[0, 0.5, 0.6]] * 3]}, {"mode": "binary"}),
]


def per_mask(
    of_mask: Callable[[Array, Array], float], logits: Array, targets: Array, mode: str, background: bool
) -> Array:
    p, t = class_maps(logits, targets, mode, background)
    values = [[of_mask(p[n, c], t[n, c]) for c in range(p.shape[1])] for n in range(p.shape[0])]
    return unbatched(np.array(values), mode)


def distances(inside: Array) -> Array:
    """Return each pixel's distance to the nearest pixel of the other kind, 0 if there is none."""
    places = list(product(*map(range, inside.shape)))
    if inside.all() or not inside.any():
        return np.zeros(inside.shape)
    found = [
        min(float(np.linalg.norm(np.subtract(a, b))) for b in places if inside[b] != inside[a])
        for a in places
    ]
    return np.array(found).reshape(inside.shape)


@oracles.of("boundary", draws=ANY, edges=EMPTY_OR_FULL)
def boundary(logits: Array, targets: Array, *, mode: str, include_background: bool) -> Array:
    def of_mask(p: Array, t: Array) -> float:
        inside = t > 0.5
        reach = distances(inside)
        level = np.where(inside, np.minimum(1 - reach, 0), reach) if reach.any() else 0 * reach
        return float((p * level).mean())

    return per_mask(of_mask, logits, targets, mode, include_background)


@oracles.of("hausdorff_dt", draws=[*ANY, ({"...": (6,)}, {"alpha": 0.7})], edges=EMPTY_OR_FULL)
def hausdorff_dt(
    logits: Array, targets: Array, *, mode: str, alpha: float, include_background: bool
) -> Array:
    def of_mask(p: Array, t: Array) -> float:
        reach = distances(p > 0.5) ** alpha + distances(t > 0.5) ** alpha
        return float(((p - t) ** 2 * reach).mean())

    return per_mask(of_mask, logits, targets, mode, include_background)


CROSS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
SQUARE = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def around(x: Array, offsets: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[float]]]:
    """Yield each pixel with the values at some offsets from it, those within the image."""
    height, width = x.shape
    for i, j in product(range(height), range(width)):
        near = [(i + a, j + b) for a, b in offsets if 0 <= i + a < height and 0 <= j + b < width]
        yield (i, j), [float(x[place]) for place in near]


def filtered(x: Array, offsets: list[tuple[int, int]], of: Callable[[list[float]], float]) -> Array:
    out = np.empty(x.shape)
    for place, values in around(x, offsets):
        out[place] = of(values)
    return out


def skeleton(x: Array, iterations: int) -> Array:
    found = np.zeros(x.shape)
    for _ in range(iterations + 1):
        eroded = filtered(x, CROSS, min)
        ridge = np.maximum(x - filtered(eroded, SQUARE, max), 0)
        found = found + np.maximum(ridge - found * ridge, 0)
        x = eroded
    return found


@oracles.of(
    "soft_cldice",
    draws=[*FLAT, ({"H": 9, "W": 9}, {"iterations": 0, "smooth": 0.1})],
    edges=[
        *EMPTY_OR_FULL,
        # a line that is missed altogether
        Edge(
            {"logits": [[[1e4, -1e4, -1e4]] * 3], "targets": [[[0, 0, 1]] * 3]},
            {"mode": "binary", "smooth": 0.0},
            {"logits": [[[0, 0, 0]] * 3]},
        ),
        Edge(
            {"logits": [[[-1e4] * 3] * 3], "targets": [[[0, 0, 0]] * 3]},
            {"mode": "binary", "smooth": 0.0},
            {"logits": [[[0, 0, 0]] * 3]},
        ),
    ],
)
def soft_cldice(
    logits: Array, targets: Array, *, mode: str, iterations: int, smooth: float, include_background: bool
) -> Array:
    def of_mask(p: Array, t: Array) -> float:
        sp, st = skeleton(p, iterations), skeleton(t, iterations)
        a = score(float((sp * t).sum()) + smooth, float(sp.sum()) + smooth)
        b = score(float((st * p).sum()) + smooth, float(st.sum()) + smooth)
        # the harmonic mean of the two
        return 1 - (2 / (1 / a + 1 / b) if a and b else 0.0)

    return per_mask(of_mask, logits, targets, mode, include_background)


@oracles.of(
    "hausdorff_er",
    draws=[*FLAT, ({"H": 6, "W": 6}, {"erosions": 1, "alpha": 1.0})],
    edges=[
        *EMPTY_OR_FULL,
        Edge({"logits": [[[1e4] * 6] * 5], "targets": [[[0] * 6] * 5]}, {"mode": "binary", "erosions": 4}),
        Edge(
            {"logits": [[[3, 4, 5, 3, 2, 6], [5, 3, 9, 4, 3, 3]] * 3], "targets": [[[0] * 6] * 6]},
            {"mode": "binary"},
        ),
        Edge(
            {"logits": [[[-5, -4, -6, -3, -7], [4, 3, 2, 5, 4]] * 3], "targets": [[[1] * 5, [0] * 5] * 3]},
            {"mode": "binary", "alpha": 0.5, "erosions": 3},
        ),
    ],
)
def hausdorff_er(
    logits: Array, targets: Array, *, mode: str, alpha: float, erosions: int, include_background: bool
) -> Array:
    def of_mask(p: Array, t: Array) -> float:
        errors, summed = (p - t) ** 2, 0.0
        for k in range(1, erosions + 1):
            mean = filtered(errors, CROSS, lambda values: sum(values) / 5)
            errors = np.where(mean >= 0.5, mean - 0.5, 0)
            spread = errors.max() - errors.min()
            errors = (errors - errors.min()) / spread if spread else errors
            summed += float(errors.mean()) * k**alpha
        return summed

    return per_mask(of_mask, logits, targets, mode, include_background)
