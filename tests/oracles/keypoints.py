"""Keypoint losses from their definitions: slopes integrated, sums over joints and pixels as loops."""

from itertools import product
from math import exp, log, sqrt
from typing import Any

import numpy as np
from mpmath import mp
from numpy.typing import NDArray
from scipy.integrate import quad

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
LARGE = {"predictions": [0.0, 1e4, -1e4], "targets": [0.0, 0.0, 0.0]}


@oracles.of(
    "wing",
    draws=[({"...": (3, 4)}, {"omega": 0.7, "epsilon": 0.2}), ({"...": (8,)}, {"omega": 1.0})],
    edges=[
        Edge(LARGE, gradients={"predictions": [0, 1, -1]}),
        # at omega the line begins
        Edge({"predictions": [10.0], "targets": [0.0]}, gradients={"predictions": [1]}),
    ],
)
def wing(predictions: Array, targets: Array, *, omega: float, epsilon: float) -> Array:
    def cost(error: float) -> float:
        curve = quad(lambda x: omega / (epsilon + x), 0, min(error, omega), epsabs=1e-13, epsrel=1e-12)[0]
        return curve + max(0.0, error - omega)

    return np.vectorize(cost)(np.abs(predictions - targets))


@oracles.of(
    "soft_wing",
    draws=[({"...": (3, 4)}, {"omega1": 0.5}), ({"...": (8,)}, {"omega2": 3.0, "epsilon": 2.0})],
    edges=[
        Edge({"predictions": [0.0, 1.0, -1.0], "targets": [0.0] * 3}, gradients={"predictions": [0, 1, -1]}),
        # at omega1 the logarithm begins
        Edge({"predictions": [2.0], "targets": [0.0]}, gradients={"predictions": [20 / 2.5]}),
        Edge(LARGE),
    ],
)
def soft_wing(predictions: Array, targets: Array, *, omega1: float, omega2: float, epsilon: float) -> Array:
    def cost(error: float) -> float:
        # x = epsilon (e^s - 1) makes the slope a constant, so that far errors integrate exactly
        beyond = max(0.0, log((epsilon + error) / (epsilon + omega1)))
        return min(error, omega1) + omega2 * beyond

    return np.vectorize(cost)(np.abs(predictions - targets))


@oracles.of(
    "adaptive_wing",
    draws=[
        ({"...": (3, 4)}, {"theta": 1.5, "alpha": 3.0}),
        ({"...": (8,)}, {"epsilon": 0.3, "omega": 2.0}),
    ],
    edges=[
        Edge(
            {"predictions": [0.0, 1.0, 0.5], "targets": [0.0, 1.0, 0.5]},
            gradients={"predictions": [0, 0, 0]},
        ),
        # at theta both pieces agree, in value and slope
        Edge({"predictions": [0.5, -0.5], "targets": [0.0, 0.0]}),
        Edge({"predictions": [1e4, -1e4], "targets": [0.0, 1.0]}),
    ],
)
def adaptive_wing(
    predictions: Array, targets: Array, *, alpha: float, omega: float, epsilon: float, theta: float
) -> Array:
    def cost(prediction: float, target: float) -> float:
        error, exponent = mp.mpf(abs(prediction - target)), mp.mpf(alpha) - target
        if error < theta:
            return float(omega * mp.log(1 + (error / epsilon) ** exponent))
        ratio = mp.mpf(theta) / epsilon
        slope = omega / (1 + ratio**exponent) * exponent * ratio ** (exponent - 1) / epsilon
        constant = theta * slope - omega * mp.log(1 + ratio**exponent)
        return float(slope * error - constant)

    return np.vectorize(cost, otypes=[float])(predictions, targets)


@oracles.of(
    "oks",
    draws=[
        ({"N": 3, "K": 17}, {}),
        ({"N": 2, "K": 4}, {"sigmas": (0.1, 0.2, 0.3, 1.5), "eps": 0.5}),
        ({"N": 1, "K": 1}, {}),
    ],
    edges=[
        # an object without a labelled joint, and one whose area is 0
        Edge(
            {
                "keypoints": [[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [5.0, 5.0]]],
                "targets": [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [3.0, 4.0]]],
                "areas": [10.0, 0.0],
                "visibility": [[0.0, 0.0], [1.0, 2.0]],
            },
            gradients={"keypoints": [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]},
        ),
        Edge({"keypoints": [[[1e4, -1e4]]], "targets": [[[0.0, 0.0]]], "areas": [1.0]}),
    ],
)
def oks(
    keypoints: Array, targets: Array, areas: Array, visibility: Any, *, sigmas: Any, eps: float
) -> dict[str, Array]:
    count = keypoints.shape[1]
    coco = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
    default = [s / 1000 for s in coco] if count == 17 else [1 / count] * count
    similarity = np.ones(len(keypoints))

    def kernel(squared: float, scale: float) -> float:
        return exp(-squared / scale) if scale else float(squared == 0)

    for n, area in enumerate(areas):
        seen = [
            kernel(((keypoints[n, k] - targets[n, k]) ** 2).sum(), (area + eps) * (2 * sigma) ** 2 * 2)
            for k, sigma in enumerate(sigmas or default)
            if visibility is None or visibility[n, k] > 0
        ]
        similarity[n] = sum(seen) / len(seen) if seen else 1.0
    return {"loss": 1 - similarity, "oks": similarity}


@oracles.of(
    "mpjpe",
    draws=[({"...": (2, 3), "K": 4, "D": 2}, {}), ({"...": (), "K": 5}, {})],
    edges=[
        # a perfect fit has no direction
        Edge(
            {"keypoints": [[1.0, 2.0], [0.0, 3.0]], "targets": [[1.0, 2.0], [0.0, 1.0]]},
            gradients={"keypoints": [[0, 0], [0, 1]]},
        ),
        Edge({"keypoints": [[1e4, -1e4, 0.0]], "targets": [[0.0, 0.0, 0.0]]}),
    ],
)
def mpjpe(keypoints: Array, targets: Array) -> Array:
    return np.apply_along_axis(lambda offset: sqrt(offset @ offset), -1, keypoints - targets)


@oracles.of(
    "heatmap_mse",
    draws=[({"N": 3, "K": 2, "H": 3, "W": 5}, {})],
    edges=[
        # one pixel is its own mean, and a correct heatmap costs nothing
        Edge(
            {"predictions": [[[[3.0]], [[0.5]]]], "targets": [[[[1.0]], [[0.5]]]]},
            gradients={"predictions": [[[[4.0]], [[0.0]]]]},
        ),
        # squares that float32 could not hold
        Edge({"predictions": [[[[1e150, 0.0]]]], "targets": [[[[-1e150, 0.0]]]]}),
    ],
)
def heatmap_mse(predictions: Array, targets: Array) -> Array:
    n, k, height, width = predictions.shape
    total = np.zeros((n, k))
    for v, u in product(range(height), range(width)):
        total += (predictions[:, :, v, u] - targets[:, :, v, u]) ** 2
    return total / (height * width)


@oracles.of(
    "heatmap_ohkm",
    draws=[({"N": 3, "K": 6, "H": 2, "W": 3}, {"top_k": 1}), ({"N": 2, "K": 8}, {"top_k": 8})],
    edges=[
        # only the harder joint learns
        Edge(
            {"predictions": [[[[2.0]], [[3.0]]]], "targets": [[[[0.0]], [[0.0]]]]},
            {"top_k": 1},
            {"predictions": [[[[0]], [[6]]]]},
        ),
    ],
)
def heatmap_ohkm(predictions: Array, targets: Array, *, top_k: int) -> Array:
    joints = np.sort(heatmap_mse(predictions, targets), axis=1)
    return joints[:, -top_k:].sum(1) / top_k


SATURATED = {"logits": [1e4, -1e4, 100.0, -100.0, 1e4, -1e4], "targets": [1.0, 1.0, 0.0, 0.0, 0.5, 0.5]}
SLOPES = {"logits": [0, -1, 1, 0, 0.0625, 0]}


@oracles.of(
    "gaussian_focal",
    draws=[
        ({"...": (3, 4)}, {"alpha": 0.0, "beta": 0.5}),
        ({"...": (2, 3)}, {"alpha": 0.5, "normalize_by_positives": True}),
    ],
    edges=[
        Edge(SATURATED, gradients=SLOPES),
        Edge(SATURATED, {"alpha": 0.5}, SLOPES),
        # two centres halve it; without a centre it is divided by 1
        Edge({"logits": [0.5, -1.0, 2.0], "targets": [1.0, 1.0, 0.3]}, {"normalize_by_positives": True}),
        Edge({"logits": [0.5, -1.0], "targets": [0.999, 0.0]}, {"normalize_by_positives": True}),
    ],
)
def gaussian_focal(
    logits: Array, targets: Array, *, alpha: float, beta: float, normalize_by_positives: bool
) -> Array:
    def cost(logit: float, target: float) -> float:
        # with as many digits as it takes to tell 1 - sigmoid(100) from 0
        odds = mp.exp(mp.mpf(logit))
        right, wrong = odds / (1 + odds), 1 / (1 + odds)
        if target == 1:
            return float(-(wrong**alpha) * mp.log(right))
        return float(-(mp.mpf(1 - target) ** beta) * right**alpha * mp.log(wrong))

    with mp.workdps(60):
        each = np.vectorize(cost, otypes=[float])(logits, targets)
    return each / max(1, (targets == 1).sum()) if normalize_by_positives else each
