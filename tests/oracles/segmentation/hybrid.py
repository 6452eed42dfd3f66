"""Pixel and hybrid losses, image by image over lists of valid pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.segmentation.overlap import EDGES, dice
from tests.oracles.segmentation.pixels import surprises

oracles = Oracles()
Array = NDArray[Any]
NAN = float("nan")

PIXELS: list[Edge] = [
    # right and wrong beyond doubt
    Edge({"logits": [[[1e4, -1e4], [-1e4, 1e4]]], "targets": [[0, 0]]}),
    # all ignored
    Edge({"logits": [[[1, 2], [0, 3]]], "targets": [[-100, -100]]}, {}, {"logits": [[[0, 0], [0, 0]]]}),
    Edge({"logits": [[[1, NAN], [0, 3]]], "targets": [[1, -100]]}, {}, {"logits": [[[NAN, 0], [NAN, 0]]]}),
    Edge({"logits": [[[1, 1], [0, 0]]], "targets": [[1, 1]]}),
]


def hardest(values: Array, number: int) -> float:
    """Average the largest values by taking the smaller ones away."""
    if number == 0:
        return 0.0
    easy = np.sort(values)[: len(values) - number]
    return float((values.sum() - easy.sum()) / number)


@oracles.of(
    "ohem_cross_entropy",
    draws=[
        ({"N": 3, "C": 4, "...": (4, 3)}, {"min_kept": 5}),
        ({"N": 3, "C": 4, "...": (4, 3)}, {"min_kept": 1, "threshold": 0.2, "ignore_index": 1}),
        ({"N": 3, "C": 4, "...": ()}, {"min_kept": 2, "threshold": None}),
        ({"N": 2, "C": 3, "...": (7,)}, {"min_kept": 1, "threshold": 1.0}),
    ],
    edges=[
        *PIXELS,
        # a probability at the threshold is not below it
        Edge({"logits": [[[0, 3], [0, 0]]], "targets": [[0, 1]]}, {"threshold": 0.5, "min_kept": 1}),
        Edge({"logits": [[[0, 3], [0, 0]]], "targets": [[0, 0]]}, {"threshold": 0.5, "min_kept": 1}),
    ],
)
def ohem_cross_entropy(
    logits: Array, targets: Array, *, threshold: float | None, min_kept: int, ignore_index: int
) -> float:
    images = list(surprises(logits, targets, "multiclass", ignore_index))
    losses = np.concatenate([loss for loss, _ in images])
    hard = sum(int((1 - wrong < threshold).sum()) for _, wrong in images) if threshold else 0
    return hardest(losses, min(len(losses), max(min_kept, hard)))


@oracles.of(
    "bootstrapped_cross_entropy",
    draws=[
        ({"N": 3, "C": 4, "...": (5, 2)}, {"fraction": 0.5}),
        ({"N": 3, "C": 4, "...": (5, 2)}, {"fraction": 1.0, "ignore_index": 2}),
        ({"N": 10, "C": 2, "...": (10,)}, {"fraction": 0.29}),
        ({"N": 2, "C": 3, "...": ()}, {}),
    ],
    edges=[
        *PIXELS,
        Edge({"logits": [[[9, -1e4], [0, 1e4]]], "targets": [[0, 0]]}, {}, {"logits": [[[0, -1], [0, 1]]]}),
    ],
)
def bootstrapped_cross_entropy(logits: Array, targets: Array, *, fraction: float, ignore_index: int) -> float:
    losses = np.concatenate([loss for loss, _ in surprises(logits, targets, "multiclass", ignore_index)])
    return hardest(losses, min(len(losses), max(1, int(fraction * len(losses)))))


HYBRID_SHAPES: list[Any] = [
    ({"N": 3, "C": 4, "...": (3, 2)}, {"dice_weight": 0.3, "smooth": 1.0}),
    ({"N": 3, "C": 4, "...": (3, 2)}, {"ignore_index": 2, "include_background": False}),
    ({"N": 2, "C": 4, "...": (3, 2)}, {"mode": "multilabel", "include_background": False}),
    ({"N": 2, "...": (3, 2)}, {"mode": "binary", "smooth": 0.0, "squared": True}),
    ({"N": 2, "C": 3, "...": ()}, {}),
]


def mean_dice(logits: Array, targets: Array, mode: str, **params: Any) -> Array:
    loss = dice(logits, targets, mode=mode, log_loss=False, zero_absent=False, reduce_batch=False, **params)
    return loss if mode == "binary" else loss.mean(1)


@oracles.of("dice_ce", draws=[*HYBRID_SHAPES, ({}, {"ce_weight": 0.0})], edges=EDGES)
def dice_ce(
    logits: Array,
    targets: Array,
    *,
    mode: str,
    dice_weight: float,
    ce_weight: float,
    ignore_index: int | None,
    **params: Any,
) -> Array:
    pixels = [loss.mean() if loss.size else 0.0 for loss, _ in surprises(logits, targets, mode, ignore_index)]
    region = mean_dice(logits, targets, mode, ignore_index=ignore_index, **params)
    return dice_weight * region + ce_weight * np.array(pixels)


@oracles.of(
    "dice_focal",
    draws=[*HYBRID_SHAPES, ({}, {"gamma": 0.0, "focal_weight": 2.0}), ({}, {"gamma": 0.5, "mode": "binary"})],
    edges=[
        *EDGES,
        # the power's slope at 0 is infinite, the loss's is not
        Edge(
            {"logits": [[1e4, -1e4]], "targets": [[1, 0]]},
            {"mode": "binary", "gamma": 0.5},
            {"logits": [[0, 0]]},
        ),
        Edge(
            {"logits": [[[1e4, -1e4], [-1e4, 1e4]]], "targets": [[0, 1]]},
            {"gamma": 0.3},
            {"logits": [[[0, 0], [0, 0]]]},
        ),
    ],
)
def dice_focal(
    logits: Array,
    targets: Array,
    *,
    mode: str,
    dice_weight: float,
    focal_weight: float,
    gamma: float,
    ignore_index: int | None,
    **params: Any,
) -> Array:
    images = surprises(logits, targets, mode, ignore_index)
    pixels = [(wrong**gamma * loss).mean() if loss.size else 0.0 for loss, wrong in images]
    region = mean_dice(logits, targets, mode, ignore_index=ignore_index, **params)
    return dice_weight * region + focal_weight * np.array(pixels)


@oracles.of(
    "combo",
    draws=[
        ({"N": 3, "...": (4, 2)}, {"alpha": 0.2, "beta": 0.9}),
        ({"N": 3, "C": 2, "...": (4, 2)}, {"mode": "multilabel", "alpha": 1.0, "beta": 0.0}),
        ({"N": 3, "C": 2, "...": ()}, {"mode": "multilabel", "alpha": 0.0, "smooth": 1.0}),
    ],
    edges=[
        Edge({"logits": [[1e4, -1e4, 1e4]], "targets": [[1, 0, 0]]}),
        Edge({"logits": [[-1e4, -1e4]], "targets": [[0, 0]]}, {"smooth": 0.0}, {"logits": [[0, 0]]}),
    ],
)
def combo(logits: Array, targets: Array, *, mode: str, alpha: float, beta: float, smooth: float) -> Array:
    axes = tuple(range(1 if mode == "binary" else 2, logits.ndim))
    entropy = -np.where(targets > 0, beta * targets * log_expit(logits), 0)
    entropy = entropy - np.where(targets < 1, (1 - beta) * (1 - targets) * log_expit(-logits), 0)
    p = expit(logits)
    above, below = 2 * (p * targets).sum(axes) + smooth, p.sum(axes) + targets.sum(axes) + smooth
    region = 1 - np.where(below == 0, 1, above / np.where(below == 0, 1, below))
    return alpha * entropy.mean(axes) + (1 - alpha) * region


@oracles.of(
    "unified_focal",
    draws=[
        ({"N": 3, "...": (4, 2)}, {"weight": 0.2, "delta": 0.3, "gamma": 0.0}),
        ({"N": 3, "...": ()}, {"weight": 0.0, "delta": 1.0, "gamma": 0.9}),
        ({"N": 3, "...": (5,)}, {"weight": 1.0, "delta": 0.0}),
        ({"N": 4, "...": (5, 2)}, {"ignore_index": 0}),
        ({"N": 4, "...": (5,)}, {"ignore_index": 1, "weight": 0.7}),
    ],
    edges=[
        Edge(
            {
                "logits": [[1, NAN, -0.5, 1e300], [0, 1, 2, 3]],
                "targets": [[1, 255, 0, 255], [255, 0, 255, 1]],
            },
            {"ignore_index": 255},
            {"logits": [[NAN, 0, NAN, 0], [0, NAN, 0, NAN]]},
        ),
        Edge({"logits": [[1, -2]], "targets": [[7, 7]]}, {"ignore_index": 7}, {"logits": [[0, 0]]}),
        Edge({"logits": [[1e4, -1e4]], "targets": [[1, 0]]}, {}, {"logits": [[0, 0]]}),
        Edge({"logits": [[1e4, -1e4]], "targets": [[0, 1]]}, {}, {"logits": [[0, 0]]}),
        Edge({"logits": [[1, -2]], "targets": [[0, 0]]}),
        Edge({"logits": [[1, -2]], "targets": [[1, 1]]}),
    ],
    tolerance=1e-8,
)
def unified_focal(
    logits: Array, targets: Array, *, weight: float, delta: float, gamma: float, ignore_index: int | None
) -> Array:
    losses: list[float] = []
    for z, y in zip(logits, targets, strict=True):
        if ignore_index is not None:
            z, y = z[y != ignore_index], y[y != ignore_index]
        p1 = np.clip(expit(z), 1e-7, 1 - 1e-7).reshape(-1)
        probability, truth = np.stack([1 - p1, p1]), np.stack([1 - y.reshape(-1), y.reshape(-1)])
        entropy = -truth * np.log(probability)
        pixels = delta * entropy[1] + (1 - delta) * (1 - probability[0]) ** gamma * entropy[0]
        hits = (truth * probability).sum(1)
        missed, false = (truth * (1 - probability)).sum(1), ((1 - truth) * probability).sum(1)
        m = (hits + 1e-7) / (hits + delta * missed + (1 - delta) * false + 1e-7)
        region = (1 - m[0]) + max(1 - m[1], 1e-7) ** (1 - gamma)
        losses.append(weight * (pixels.mean() if pixels.size else 0.0) + (1 - weight) / 2 * region)
    return np.array(losses)
