"""Similarity of windows, each cut out and its moments taken about its own mean."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

CHECKS = np.indices((6, 6)).sum(0) % 2.0
FLAT = np.full((1, 1, 6, 6), 0.4).tolist()
RAMP = (np.arange(36.0).reshape(1, 1, 6, 6) / 36).tolist()


def gaussian(size: int, sigma: float, axes: int = 2) -> Array:
    distance = np.linalg.norm(np.indices((size,) * axes) - (size - 1) / 2, axis=0)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum()


def maps(p: Array, t: Array, weights: Array, c1: float, c2: float) -> tuple[Array, Array]:
    """SSIM and its contrast-structure part, from weighted central moments of each window."""
    space, inside = tuple(range(2, p.ndim)), tuple(range(-weights.ndim, 0))
    windows_p, windows_t = (sliding_window_view(x, weights.shape, space) for x in (p, t))
    mean_p, mean_t = ((w * weights).sum(inside, keepdims=True) for w in (windows_p, windows_t))
    off_p, off_t = windows_p - mean_p, windows_t - mean_t
    var_p, var_t, cov = ((x * weights).sum(inside) for x in (off_p**2, off_t**2, off_p * off_t))
    mean_p, mean_t = mean_p.squeeze(inside), mean_t.squeeze(inside)
    structure = (2 * cov + c2) / (var_p + var_t + c2)
    return (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1) * structure, structure


@oracles.of(
    "ssim",
    draws=[
        ({"N": 2, "C": 1, "D": 12, "H": 11, "W": 14}, {"window_size": 11}),
        (
            {"N": 1, "C": 3, "D": 6, "H": 9, "W": 5},
            {"window_size": 5, "sigma": 0.7, "data_range": 2.5, "k1": 0.2},
        ),
        ({"N": 3, "C": 1, "H": 1, "W": 4}, {"window_size": 1, "k2": 0.5}),
        # wide and high enough to be filtered in several blocks
        ({"N": 1, "C": 1, "H": 3, "W": 400}, {}),
        ({"N": 1, "C": 1, "H": 260, "W": 3}, {}),
        ({"N": 1, "C": 1, "D": 260, "H": 3, "W": 4}, {}),
    ],
    edges=[
        Edge(
            {"predictions": RAMP, "targets": RAMP},
            {"window_size": 3},
            {"predictions": np.zeros((1, 1, 6, 6))},
        ),
        Edge(
            {"predictions": FLAT, "targets": FLAT},
            {"window_size": 5},
            {"predictions": np.zeros((1, 1, 6, 6))},
        ),
        Edge({"predictions": np.zeros((1, 1, 6, 6)), "targets": np.zeros((1, 1, 6, 6))}, {"window_size": 5}),
        # volumes: equal ones, and flat ones of different brightness
        Edge(
            {"predictions": [[[RAMP[0][0]] * 3]], "targets": [[[RAMP[0][0]] * 3]]},
            {"window_size": 3},
            {"predictions": np.zeros((1, 1, 3, 6, 6))},
        ),
        Edge({"predictions": [[[FLAT[0][0]] * 3]], "targets": np.ones((1, 1, 3, 6, 6))}, {"window_size": 3}),
        # wholly unlike: structure turned over
        Edge({"predictions": CHECKS[None, None], "targets": 1 - CHECKS[None, None]}, {"window_size": 3}),
    ],
)
def ssim(
    predictions: Array,
    targets: Array,
    *,
    data_range: float,
    window_size: int,
    sigma: float,
    k1: float,
    k2: float,
    form: str,
) -> Array:
    weights = gaussian(window_size, sigma, predictions.ndim - 2)
    similarity, _ = maps(predictions, targets, weights, (k1 * data_range) ** 2, (k2 * data_range) ** 2)
    distance = 1 - similarity.mean(tuple(range(1, similarity.ndim)))
    return distance if form == "one_minus" else distance / 2


@oracles.of(
    "ms_ssim",
    draws=[
        ({"N": 2, "C": 2, "H": 13, "W": 15}, {"weights": (0.2, 0.3, 0.5)}),
        ({"N": 1, "C": 1, "H": 11, "W": 12}, {"window_size": 11, "weights": (1.0,), "data_range": 3.0}),
        (
            {"N": 1, "C": 1, "H": 176, "W": 177},
            {"window_size": 11, "weights": (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)},
        ),
    ],
    edges=[
        Edge(
            {"predictions": RAMP, "targets": RAMP},
            {"window_size": 3, "weights": [0.4, 0.6]},
            {"predictions": np.zeros((1, 1, 6, 6))},
        ),
        # a negative correlation at the first scale takes value and gradient of the product to 0
        Edge(
            {"predictions": CHECKS[None, None], "targets": 1 - CHECKS[None, None]},
            {"window_size": 3, "weights": [0.4, 0.6]},
            {"predictions": np.zeros((1, 1, 6, 6))},
        ),
        # of two channels one vanishes
        Edge(
            {
                "predictions": np.stack([CHECKS, np.arange(36.0).reshape(6, 6) / 36])[None],
                "targets": np.stack([1 - CHECKS, np.arange(36.0).reshape(6, 6) ** 2 / 36**2])[None],
            },
            {"window_size": 3, "weights": [0.4, 0.6]},
            {"predictions": np.stack([np.zeros((6, 6)), np.full((6, 6), np.nan)])[None]},
        ),
    ],
)
def ms_ssim(
    predictions: Array,
    targets: Array,
    *,
    data_range: float,
    window_size: int,
    sigma: float,
    k1: float,
    k2: float,
    weights: Any,
) -> Array:
    product = np.ones(predictions.shape[:2])
    for scale, weight in enumerate(weights, start=1):
        whole, structure = maps(
            predictions, targets, gaussian(window_size, sigma), (k1 * data_range) ** 2, (k2 * data_range) ** 2
        )
        mean = (whole if scale == len(weights) else structure).mean((2, 3))
        product *= np.maximum(mean, 0) ** weight
        predictions, targets = halved(predictions), halved(targets)
    return 1 - product.mean(1)


def halved(x: Array) -> Array:
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return (x[..., :h:2, :w:2] + x[..., 1:h:2, :w:2] + x[..., :h:2, 1:w:2] + x[..., 1:h:2, 1:w:2]) / 4


@oracles.of(
    "local_ncc",
    draws=[
        ({"N": 1, "C": 2, "H": 9, "W": 7}, {"kernel_size": 5, "smooth_nr": 0.1, "smooth_dr": 0.5}),
        ({"N": 2, "C": 1, "H": 2, "W": 3}, {"kernel_size": 7}),
        ({"N": 2, "C": 1, "H": 2, "W": 3}, {"kernel_size": 1, "smooth_nr": 1e-6}),
    ],
    edges=[
        # volumes: equal ones, of one slice, flat ones
        Edge({"predictions": [RAMP], "targets": [RAMP]}, {"kernel_size": 5}),
        Edge({"predictions": [[*RAMP, *RAMP]], "targets": [[*RAMP, *FLAT]]}),
        Edge({"predictions": np.zeros((1, 1, 3, 3, 3)), "targets": np.ones((1, 1, 3, 3, 3))}),
        Edge({"predictions": RAMP, "targets": RAMP}),
        Edge({"predictions": RAMP, "targets": (1 - np.array(RAMP)).tolist()}),
        # flat images vary at the border only, beyond which pixels are 0; a black one not even there
        Edge({"predictions": FLAT, "targets": RAMP}),
        Edge(
            {"predictions": np.zeros((1, 1, 6, 6)), "targets": RAMP},
            gradients={"predictions": np.zeros((1, 1, 6, 6))},
        ),
    ],
    # a window with almost no variance divides rounding by 1e-5
    tolerance=1e-8,
)
def local_ncc(
    predictions: Array, targets: Array, *, kernel_size: int, smooth_nr: float, smooth_dr: float
) -> Array:
    r, axes = kernel_size // 2, predictions.ndim - 2
    border, inside = ((0, 0), (0, 0), *[(r, r)] * axes), tuple(range(-axes, 0))
    p, t = (
        sliding_window_view(np.pad(x, border), (kernel_size,) * axes, tuple(range(2, predictions.ndim)))
        for x in (predictions, targets)
    )
    off_p, off_t = (x - x.mean(inside, keepdims=True) for x in (p, t))
    cross = (off_p * off_t).sum(inside)
    variance_p, variance_t = (np.maximum((x**2).sum(inside), smooth_dr) for x in (off_p, off_t))
    return -(cross**2 + smooth_nr) / variance_p / variance_t
