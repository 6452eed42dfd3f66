"""Gradient magnitudes by scipy's correlation with whole kernels, pixels halved one by one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

PREWITT = np.array([[-1.0, 0.0, 1.0]] * 3) / 3
RAMP = (np.arange(36.0).reshape(1, 1, 6, 6) / 36).tolist()
NO_SLOPE = {"predictions": np.zeros((1, 1, 6, 6)), "targets": np.zeros((1, 1, 6, 6))}


@oracles.of(
    "gmsd",
    tolerance=1e-12,
    draws=[
        ({"N": 2, "C": 1, "H": 1, "W": 1}, {}),
        ({"N": 2, "C": 1, "H": 9, "W": 6}, {"data_range": 2.5}),
        ({"N": 3, "C": 3, "H": 8, "W": 7}, {"c": 0.3}),
        ({"N": 1, "C": 3, "H": 40, "W": 31}, {}),
    ],
    edges=[
        Edge({"predictions": RAMP, "targets": RAMP}, gradients=NO_SLOPE),
        # no edges in either, none in one, the same edges the other way round
        Edge({"predictions": np.zeros((1, 1, 6, 6)), "targets": np.zeros((1, 1, 6, 6))}, gradients=NO_SLOPE),
        Edge({"predictions": np.zeros((1, 1, 6, 6)), "targets": RAMP}),
        Edge({"predictions": (-np.array(RAMP)).tolist(), "targets": RAMP}, gradients=NO_SLOPE),
        # two pixels of which one is halved to an edge: of two numbers the deviation is half the difference
        Edge(
            {"predictions": [[[[0.0, 0.0, 1.0, 1.0]] * 2]], "targets": [[[[0.0, 0.0, 0.5, 0.5]] * 2]]},
            {"c": 1.0},
        ),
    ],
)
def gmsd(predictions: Array, targets: Array, *, data_range: float, c: float) -> Array:
    found: list[float] = []
    for image, known in zip(predictions, targets, strict=True):
        m, n = (_strength(_halved(_brightness(x) / data_range)) for x in (image, known))
        found.append(float(np.std((2 * m * n + c) / (m**2 + n**2 + c))))
    return np.array(found)


def _brightness(image: Array) -> Array:
    return image[0] if len(image) == 1 else 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def _halved(pixels: Array) -> Array:
    height, width = (-(-side // 2) for side in pixels.shape)
    found = np.zeros((height, width))
    for (i, j), pixel in np.ndenumerate(pixels):
        found[i // 2, j // 2] += pixel / 4
    return found


def _strength(pixels: Array) -> Array:
    along = [ndimage.correlate(pixels, kernel, mode="constant") for kernel in (PREWITT, PREWITT.T)]
    return np.hypot(*along)
