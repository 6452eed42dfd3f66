"""Region overlaps pixel list by pixel list, from their scores as the papers write them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.segmentation.pixels import lost, per_region, pixel_lists, score

oracles = Oracles()
Array = NDArray[Any]

NAN = float("nan")
SHAPES = [
    ({"N": 3, "C": 5, "...": (4, 3)}, {}),
    ({"N": 2, "C": 2, "...": (2, 3, 2)}, {"smooth": 1.0, "include_background": False}),
    ({"N": 2, "C": 4, "...": ()}, {"mode": "multilabel", "smooth": 0.3, "reduce_batch": True}),
    ({"N": 3, "...": (5,)}, {"mode": "binary", "reduce_batch": True}),
    ({"N": 3, "C": 4, "...": (5,)}, {"ignore_index": 0, "reduce_batch": True, "include_background": False}),
    ({"N": 3, "...": (4, 2)}, {"mode": "binary", "smooth": 0.0}),
    ({"N": 2, "C": 1, "...": (6,)}, {"mode": "multilabel", "smooth": 0.01}),
]
IGNORED = [
    # a pixel that does not count may hold anything
    Edge(
        {"logits": [[[2, NAN, 0.5], [0, 1e4, -0.5]]], "targets": [[0, 255, 1]]},
        {"ignore_index": 255},
        {"logits": [[[NAN, 0, NAN], [NAN, 0, NAN]]]},
    ),
    Edge(
        {"logits": [[2, NAN, -1]], "targets": [[0.3, -1, 1]]},
        {"mode": "binary", "ignore_index": -1},
        {"logits": [[NAN, 0, NAN]]},
    ),
    # none counts at all
    Edge(
        {"logits": [[[2, -1], [0, 1]]], "targets": [[7, 7]]},
        {"ignore_index": 7},
        {"logits": [[[0, 0], [0, 0]]]},
    ),
    Edge(
        {"logits": [[2, -1]], "targets": [[9, 9]]},
        {"mode": "binary", "ignore_index": 9},
        {"logits": [[0, 0]]},
    ),
]
SATURATED = [
    # a perfect fit, a total miss, an empty mask predicted as empty
    Edge(
        {"logits": [[[1e4, -1e4], [-1e4, 1e4]]], "targets": [[0, 1]]},
        {},
        {"logits": [[[0, 0], [0, 0]]]},
    ),
    Edge({"logits": [[[1e4, -1e4], [-1e4, 1e4]]], "targets": [[1, 0]]}),
    Edge({"logits": [[[1e4, 1e4], [-1e4, -1e4]]], "targets": [[0, 0]]}),
    Edge({"logits": [[-1e4, -1e4, -1e4]], "targets": [[0, 0, 0]]}, {"mode": "binary"}),
]
SMOOTHLESS = [
    Edge(
        {"logits": [[-1e4, -1e4, -1e4]], "targets": [[0, 0, 0]]},
        {"mode": "binary", "smooth": 0.0},
        {"logits": [[0, 0, 0]]},
    ),
    Edge({"logits": [[[1e4, 1e4], [-1e4, -1e4]]], "targets": [[0, 0]]}, {"smooth": 0.0}),
]
EDGES = [*IGNORED, *SATURATED, *SMOOTHLESS]
ABSENT = [
    Edge({"logits": [[[2, -1], [0, 1]]], "targets": [[0, 0]]}, {"zero_absent": True}),
    Edge(
        {"logits": [[-1, 2]], "targets": [[0, 3]]}, {"mode": "binary", "zero_absent": True, "ignore_index": 3}
    ),
    # a score below 1e-7 is as bad as it gets
    Edge(
        {"logits": [[-40.0, -50.0]], "targets": [[1, 1]]},
        {"mode": "binary", "log_loss": True, "smooth": 0.0},
        {"logits": [[0, 0]]},
    ),
]


@oracles.of("dice", draws=[*SHAPES, ({}, {"squared": True, "reduce_batch": True})], edges=[*EDGES, *ABSENT])
def dice(
    logits: Array,
    targets: Array,
    *,
    smooth: float,
    squared: bool,
    log_loss: bool,
    zero_absent: bool,
    **masks: Any,
) -> Array:
    def of_class(p: Array, t: Array) -> float:
        power = 2 if squared else 1
        below = (p**power).sum() + (t**power).sum()
        loss = lost(score(2 * p @ t + smooth, below + smooth), log_loss)
        return loss * (t.sum() > 0) if zero_absent else loss

    return per_region(of_class, logits, targets, **masks)


@oracles.of("jaccard", draws=SHAPES, edges=[*EDGES, *ABSENT])
def jaccard(
    logits: Array, targets: Array, *, smooth: float, log_loss: bool, zero_absent: bool, **masks: Any
) -> Array:
    def of_class(p: Array, t: Array) -> float:
        union = (1 - (1 - p) * (1 - t)).sum()
        loss = lost(score(p @ t + smooth, union + smooth), log_loss)
        return loss * (t.sum() > 0) if zero_absent else loss

    return per_region(of_class, logits, targets, **masks)


def tversky_score(p: Array, t: Array, alpha: float, beta: float, smooth: float) -> float:
    hits = p @ t
    return score(hits + smooth, hits + alpha * (p @ (1 - t)) + beta * ((1 - p) @ t) + smooth)


@oracles.of(
    "tversky",
    draws=[*SHAPES, ({}, {"alpha": 0.0, "beta": 1.5}), ({}, {"alpha": 2.0})],
    edges=[*EDGES, *ABSENT],
)
def tversky(
    logits: Array,
    targets: Array,
    *,
    alpha: float,
    beta: float,
    smooth: float,
    log_loss: bool,
    zero_absent: bool,
    **masks: Any,
) -> Array:
    def of_class(p: Array, t: Array) -> float:
        loss = lost(tversky_score(p, t, alpha, beta, smooth), log_loss)
        return loss * (t.sum() > 0) if zero_absent else loss

    return per_region(of_class, logits, targets, **masks)


@oracles.of(
    "focal_tversky",
    draws=[*SHAPES, ({}, {"gamma": 0.5}), ({}, {"gamma": 3.0, "alpha": 1.0, "beta": 0.0})],
    edges=EDGES,
)
def focal_tversky(
    logits: Array, targets: Array, *, alpha: float, beta: float, gamma: float, smooth: float, **masks: Any
) -> Array:
    def of_class(p: Array, t: Array) -> float:
        return max(1 - tversky_score(p, t, alpha, beta, smooth), 1e-7) ** (1 / gamma)

    return per_region(of_class, logits, targets, **masks)


@oracles.of("log_cosh_dice", draws=SHAPES, edges=EDGES)
def log_cosh_dice(logits: Array, targets: Array, *, smooth: float, **masks: Any) -> Array:
    def of_class(p: Array, t: Array) -> float:
        return float(np.log(np.cosh(1 - score(2 * p @ t + smooth, p.sum() + t.sum() + smooth))))

    return per_region(of_class, logits, targets, **masks)


@oracles.of(
    "generalized_dice",
    draws=[*SHAPES, ({"C": 6}, {"weight_type": "simple", "reduce_batch": True})],
    edges=[
        *EDGES,
        # class 2 is absent and weighs as much as the smallest other
        Edge({"logits": [[[2, 1, 0], [0, 1, 1], [-1, 0, 1]]], "targets": [[0, 0, 1]]}),
        Edge({"logits": [[-1.0, 2.0]], "targets": [[0, 0]]}, {"mode": "binary"}),
        Edge({"logits": [[9.0, 9.0]], "targets": [[0, 0]]}, {"mode": "binary"}),
        # in a large image, too, `smooth` is a small part of the smallest class
        Edge(
            {"logits": [[8.0] * 4096 + [-8.0] * 4096], "targets": [[0] * 4096 + [1] * 4096]},
            {"mode": "binary"},
        ),
    ],
)
def generalized_dice(
    logits: Array,
    targets: Array,
    *,
    mode: str,
    weight_type: str,
    smooth: float,
    reduce_batch: bool,
    **masks: Any,
) -> Array:
    losses: list[float] = []
    for image in pixel_lists(logits, targets, mode, reduce_batch=reduce_batch, **masks):
        sizes = [t.sum() for _, t in image]
        power = {"square": 2, "simple": 1, "uniform": 0}[weight_type]
        smallest = min((size for size in sizes if size > 0), default=1)
        weights = [(smallest / (size if size > 0 else smallest)) ** power for size in sizes]
        above = sum(w * 2 * (p @ t) for w, (p, t) in zip(weights, image, strict=True))
        below = sum(w * (p.sum() + t.sum()) for w, (p, t) in zip(weights, image, strict=True))
        losses.append(1 - score(above + smooth, below + smooth))
    return np.array(losses)[0] if reduce_batch else np.array(losses)


@oracles.of(
    "mcc",
    draws=[(sizes, {k: v for k, v in params.items() if k != "smooth"}) for sizes, params in SHAPES]
    + [({}, {"eps": 0.5})],
    edges=[
        *IGNORED,
        *SATURATED,
        # nothing of the class, but something predicted
        Edge({"logits": [[-1.0, 2.0, 0.0]], "targets": [[0, 0, 0]]}, {"mode": "binary"}),
        Edge({"logits": [[-50.0, 50.0]], "targets": [[0, 1]]}, {"mode": "binary"}),
        Edge(
            {"logits": [[1e4, 1e4]], "targets": [[0, 1]]},
            {"mode": "binary", "eps": 0.0},
            {"logits": [[0, 0]]},
        ),
    ],
)
def mcc(logits: Array, targets: Array, *, eps: float, **masks: Any) -> Array:
    def of_class(p: Array, t: Array) -> float:
        table = np.array([[(1 - p) @ (1 - t), p @ (1 - t)], [(1 - p) @ t, p @ t]])
        if table[0, 1] == 0 and table[1, 0] == 0:
            return 0.0
        product = table.sum(0).prod() * table.sum(1).prod() + eps
        return 1 - (np.linalg.det(table) / np.sqrt(product) if product else 0.0)

    return per_region(of_class, logits, targets, **masks)


@oracles.of(
    "generalized_wasserstein_dice",
    draws=[
        (
            {"C": 4, "...": (3, 2)},
            {"distance_matrix": ((0, 1, 2, 5), (1, 0, 3, 1), (2, 0.5, 0, 1), (4, 1, 1, 0))},
        ),
        ({"N": 3}, {"weighting": "generalized", "smooth": 0.0}),
        ({"C": 2, "...": ()}, {"distance_matrix": ((0, 0), (0, 0))}),
        ({"N": 3, "...": (4, 3)}, {"ignore_index": 0}),
        ({"N": 3, "...": (4, 3)}, {"ignore_index": 1, "weighting": "generalized"}),
    ],
    edges=[
        *(
            Edge(
                {"logits": [[[2, NAN, 0.5, 1e4], [0, 1e4, -0.5, 0]]], "targets": [[0, 255, 1, 255]]},
                {"ignore_index": 255, "distance_matrix": [[0, 1], [1, 0]], "weighting": weighting},
                {"logits": [[[NAN, 0, NAN, 0], [NAN, 0, NAN, 0]]]},
            )
            for weighting in ("default", "generalized")
        ),
        *(
            Edge(
                {"logits": [[[2, -1], [0, 1]]], "targets": [[7, 7]]},
                {
                    "ignore_index": 7,
                    "distance_matrix": [[0, 1], [1, 0]],
                    "weighting": weighting,
                    "smooth": smooth,
                },
                {"logits": [[[0, 0], [0, 0]]]},
            )
            for weighting in ("default", "generalized")
            for smooth in (0.0, 1.0)
        ),
        # only background, right and wrong
        Edge(
            {"logits": [[[1e4, 1e4], [-1e4, -1e4]]], "targets": [[0, 0]]},
            {"distance_matrix": [[0, 1], [1, 0]], "smooth": 0.0},
            {"logits": [[[0, 0], [0, 0]]]},
        ),
        Edge(
            {"logits": [[[-1e4, 1e4], [1e4, -1e4]]], "targets": [[0, 1]]},
            {"distance_matrix": [[0, 3], [1, 0]]},
        ),
    ],
)
def generalized_wasserstein_dice(
    logits: Array,
    targets: Array,
    *,
    distance_matrix: Any,
    weighting: str,
    smooth: float,
    ignore_index: int | None,
) -> Array:
    distances = np.array(distance_matrix, float)
    distances = distances / (distances.max() or 1)
    losses: list[float] = []
    for z, y in zip(logits, targets, strict=True):
        p, labels = softmax(z, axis=0).reshape(len(z), -1), y.reshape(-1)
        if ignore_index is not None:
            p, labels = p[:, labels != ignore_index], labels[labels != ignore_index]
        above = below = smooth
        for i, label in enumerate(labels):
            error = sum(distances[label, c] * p[c, i] for c in range(len(z)))
            if weighting == "default":
                above += 2 * (label != 0) * (1 - error)
                below += 2 * (label != 0) * (1 - error) + error
            else:
                a = 1 / ((labels == label).sum() + 1)
                above += 2 * a * (1 - error)
                below += a * (2 - error)
        losses.append(1 - score(above, below))
    return np.array(losses)
