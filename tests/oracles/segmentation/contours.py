"""Contours and centre lines by definition: distances by brute force, morphology pixel by pixel."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.segmentation.pixels import class_maps, score, unbatched, valid_maps

oracles = Oracles()
Array = NDArray[Any]
NAN = float("nan")

FLAT: list[Any] = [
    ({"N": 2, "C": 3, "H": 6, "W": 5}, {"include_background": False}),
    ({"N": 2, "C": 2, "H": 1, "W": 7}, {"mode": "multilabel"}),
    ({"N": 3, "H": 7, "W": 6}, {"mode": "binary"}),
    ({"N": 2, "C": 4, "H": 6, "W": 5}, {"ignore_index": 2, "include_background": False}),
]
ANY: list[Any] = [
    ({"N": 2, "C": 3, "...": (5, 4)}, {"include_background": False}),
    ({"N": 2, "C": 2, "...": (3, 3, 2)}, {"mode": "multilabel"}),
    ({"N": 3, "...": (9,)}, {"mode": "binary"}),
    ({"N": 3, "C": 2, "...": ()}, {"mode": "multilabel"}),
    ({"N": 2, "C": 4, "...": (6, 5)}, {"ignore_index": 2, "include_background": False}),
    ({"N": 2, "C": 3, "...": (3, 3, 2)}, {"ignore_index": 0}),
]
PLANE = [[[2, -1, 0], [1, 3, -2], [0.5, -1, -3]]]
EMPTY_OR_FULL = [
    Edge({"logits": PLANE, "targets": [[[0] * 3] * 3]}, {"mode": "binary"}),
    Edge({"logits": PLANE, "targets": [[[1] * 3] * 3]}, {"mode": "binary"}),
    Edge({"logits": [[[1e4, -1e4, -1e4]] * 3], "targets": [[[0, 0, 1]] * 3]}, {"mode": "binary"}),
    Edge({"logits": [[[-1e4] * 3] * 3], "targets": [[[0, 0.5, 0.6]] * 3]}, {"mode": "binary"}),
]
IGNORED = [
    # pixels that do not count may hold anything, between the sides and within them
    Edge(
        {
            "logits": [[[2, NAN, -1, 3], [1, 3, -1e300, 0], [0.5, -1, -3, 1]]],
            "targets": [[[1, 255, 0, 0], [1, 1, 255, 0.3], [255, 255, 0, 0]]],
        },
        {"mode": "binary", "ignore_index": 255},
        {"logits": [[[NAN, 0, NAN, NAN], [NAN, NAN, 0, NAN], [0, 0, NAN, NAN]]]},
    ),
    Edge(
        {
            "logits": [[[[2, NAN, -1], [0, 1, 4]], [[0, 1, NAN], [3, -2, 1]]]],
            "targets": [[[[1, -1, 0], [1, 1, 0]], [[0, 0, -1], [0, 1, 1]]]],
        },
        {"mode": "multilabel", "ignore_index": -1},
        {"logits": [[[[NAN, 0, NAN], [NAN] * 3], [[NAN, NAN, 0], [NAN] * 3]]]},
    ),
    Edge(
        {"logits": [[[[2, NAN, 0.5]] * 2, [[0, 1e4, -0.5]] * 2]], "targets": [[[0, 9, 1], [1, 9, 0]]]},
        {"ignore_index": 9},
        {"logits": [[[[NAN, 0, NAN]] * 2] * 2]},
    ),
    # what counts is empty or full
    Edge({"logits": PLANE, "targets": [[[0] * 3, [7] * 3, [0] * 3]]}, {"mode": "binary", "ignore_index": 7}),
    Edge({"logits": PLANE, "targets": [[[1] * 3, [7] * 3, [1] * 3]]}, {"mode": "binary", "ignore_index": 7}),
    # nothing counts
    Edge(
        {"logits": PLANE, "targets": [[[7] * 3] * 3]},
        {"mode": "binary", "ignore_index": 7},
        {"logits": [[[0] * 3] * 3]},
    ),
]


def per_mask(
    of_mask: Callable[[Array, Array, Array], float],
    logits: Array,
    targets: Array,
    *,
    mode: str,
    include_background: bool,
    ignore_index: int | None,
) -> Array:
    """Apply a reference to each mask: its probabilities and truths, 0 where pixels do not count, and which ones do."""
    maps = class_maps(logits, targets, mode, include_background)
    keep = valid_maps(logits, targets, mode, ignore_index, include_background)
    p, t = np.where(keep, maps, 0)
    values = [[of_mask(p[n, c], t[n, c], keep[n, c]) for c in range(p.shape[1])] for n in range(p.shape[0])]
    return unbatched(np.array(values), mode)


def distances(inside: Array, keep: Array) -> Array:
    """Return each pixel's distance to the nearest pixel of the other kind, 0 if there is none.

    Pixels that are not kept are of no kind, and have none.
    """
    places = [place for place in product(*map(range, inside.shape)) if keep[place]]
    found = np.zeros(inside.shape)
    for a in places:
        others = [float(np.linalg.norm(np.subtract(a, b))) for b in places if inside[b] != inside[a]]
        found[a] = min(others, default=0.0)
    return found


def mean(values: Array, keep: Array) -> float:
    """Average the pixels that are kept; of none it is 0."""
    return float(values[keep].mean()) if keep.any() else 0.0


@oracles.of("boundary", draws=ANY, edges=[*EMPTY_OR_FULL, *IGNORED])
def boundary(logits: Array, targets: Array, **masks: Any) -> Array:
    def of_mask(p: Array, t: Array, keep: Array) -> float:
        inside = t > 0.5
        reach = distances(inside, keep)
        level = np.where(inside, np.minimum(1 - reach, 0), reach) if reach.any() else 0 * reach
        return mean(p * level, keep)

    return per_mask(of_mask, logits, targets, **masks)


@oracles.of("hausdorff_dt", draws=[*ANY, ({"...": (6,)}, {"alpha": 0.7})], edges=[*EMPTY_OR_FULL, *IGNORED])
def hausdorff_dt(logits: Array, targets: Array, *, alpha: float, **masks: Any) -> Array:
    def of_mask(p: Array, t: Array, keep: Array) -> float:
        reach = distances(p > 0.5, keep) ** alpha + distances(t > 0.5, keep) ** alpha
        return mean((p - t) ** 2 * reach, keep)

    return per_mask(of_mask, logits, targets, **masks)


def cube(axes: int) -> list[Array]:
    """Return the offsets to a pixel and all that touch it."""
    return [np.array(offset) for offset in product((-1, 0, 1), repeat=axes)]


def cross(axes: int) -> list[Array]:
    """Return the offsets to a pixel and its neighbours along each axis."""
    return [offset for offset in cube(axes) if np.abs(offset).sum() <= 1]


def around(x: Array, keep: Array, offsets: list[Array]) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    """Yield each pixel that is kept, with the values at some offsets from it: those that are kept too."""
    kept = set(zip(*(axis.tolist() for axis in np.nonzero(keep)), strict=True))
    for place in kept:
        near = [tuple((np.array(place) + offset).tolist()) for offset in offsets]
        yield place, [float(x[other]) for other in near if other in kept]


def filtered(x: Array, keep: Array, offsets: list[Array], of: Callable[[list[float]], float]) -> Array:
    out = np.zeros(x.shape)
    for place, values in around(x, keep, offsets):
        out[place] = of(values)
    return out


def skeleton(x: Array, keep: Array, iterations: int) -> Array:
    found = np.zeros(x.shape)
    for _ in range(iterations + 1):
        eroded = filtered(x, keep, cross(x.ndim), min)
        ridge = np.maximum(x - filtered(eroded, keep, cube(x.ndim), max), 0)
        found = found + np.maximum(ridge - found * ridge, 0)
        x = eroded
    return found


@oracles.of(
    "soft_cldice",
    draws=[
        *FLAT,
        ({"H": 9, "W": 9}, {"iterations": 0, "smooth": 0.1}),
        ({"D": 1, "H": 5, "W": 6}, {"mode": "binary", "iterations": 2}),
        ({"N": 1, "D": 6, "H": 3, "W": 5}, {"mode": "multilabel", "include_background": False}),
    ],
    edges=[
        *EMPTY_OR_FULL,
        *IGNORED,
        # volumes: a tube, its end and a slice of it ignored
        Edge(
            {
                "logits": [
                    [[[-2, 3, -1], [-1, 2, -2]], [[-3, 1, -1], [-2, NAN, -1]], [[-1, 2, 0], [-1, 4, -2]]]
                ],
                "targets": [[[[0, 1, 0], [0, 1, 0]], [[0, 1, 0], [0, 5, 0]], [[0, 1, 0], [5, 5, 5]]]],
            },
            {"mode": "binary", "ignore_index": 5, "iterations": 1},
        ),
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
def soft_cldice(logits: Array, targets: Array, *, iterations: int, smooth: float, **masks: Any) -> Array:
    def of_mask(p: Array, t: Array, keep: Array) -> float:
        sp, st = skeleton(p, keep, iterations), skeleton(t, keep, iterations)
        a = score(float((sp * t).sum()) + smooth, float(sp.sum()) + smooth)
        b = score(float((st * p).sum()) + smooth, float(st.sum()) + smooth)
        # the harmonic mean of the two
        return 1 - (2 / (1 / a + 1 / b) if a and b else 0.0)

    return per_mask(of_mask, logits, targets, **masks)


@oracles.of(
    "hausdorff_er",
    draws=[*FLAT, ({"H": 6, "W": 6}, {"erosions": 1, "alpha": 1.0})],
    edges=[
        *EMPTY_OR_FULL,
        *IGNORED,
        # the largest error, and the only place without one, do not count
        Edge(
            {
                "logits": [[[3, 4, 5, 3], [5, 9, NAN, 4], [4, 3, -9, 5]]],
                "targets": [[[0] * 4, [0, 0, 8, 0], [0, 0, 8, 0]]],
            },
            {"mode": "binary", "ignore_index": 8, "erosions": 3},
            {"logits": [[[NAN] * 4, [NAN, NAN, 0, NAN], [NAN, NAN, 0, NAN]]]},
        ),
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
def hausdorff_er(logits: Array, targets: Array, *, alpha: float, erosions: int, **masks: Any) -> Array:
    def of_mask(p: Array, t: Array, keep: Array) -> float:
        errors, summed = (p - t) ** 2, 0.0
        for k in range(1, erosions + 1):
            means = filtered(errors, keep, cross(2), lambda values: sum(values) / 5)
            errors = np.where(means >= 0.5, means - 0.5, 0)
            low, high = (float(of(errors[keep])) if keep.any() else 0.0 for of in (np.min, np.max))
            errors = np.where(keep, (errors - low) / (high - low), 0) if high > low else errors
            summed += mean(errors, keep) * k**alpha
        return summed

    return per_mask(of_mask, logits, targets, **masks)
