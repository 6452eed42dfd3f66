"""Edges and details by scipy's image filters, and by neighbours one by one."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

ZEROS = np.zeros((1, 1, 3, 4)).tolist()
FLAT = np.full((1, 1, 3, 4), 0.3).tolist()
RAMP = (np.arange(12.0).reshape(1, 1, 3, 4) / 8).tolist()
RAISED = (np.arange(12.0).reshape(1, 1, 3, 4) / 8 + 0.5).tolist()


def neighbours(image: Array, down: int, right: int) -> list[float]:
    """Differences of all pixels with those so many rows down and columns to the right of them."""
    _, height, width = image.shape
    return [
        plane[i + down, j + right] - plane[i, j]
        for plane in image
        for i in range(height - down)
        for j in range(width - right)
    ]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@oracles.of(
    "image_gradient",
    draws=[({"N": 3, "C": 1, "H": 2, "W": 5}, {}), ({"N": 1, "C": 2, "H": 6, "W": 2}, {})],
    edges=[
        # blind to an offset, with a gradient of 0 at the kink
        Edge({"predictions": RAISED, "targets": RAMP}, gradients={"predictions": ZEROS}),
        Edge({"predictions": [[[[1e4, -1e4], [0, 1]]]], "targets": [[[[0, 0], [0, 0]]]]}),
    ],
)
def image_gradient(predictions: Array, targets: Array) -> list[float]:
    return [
        sum(
            mean([abs(a - b) for a, b in zip(neighbours(p, *step), neighbours(t, *step), strict=True)])
            for step in ((0, 1), (1, 0))
        )
        for p, t in zip(predictions, targets, strict=True)
    ]


@oracles.of(
    "gradient_difference",
    draws=[
        ({"N": 3, "C": 1, "H": 2, "W": 5}, {"alpha": 2.0}),
        ({"N": 1, "C": 2, "H": 6, "W": 2}, {"alpha": 1.5}),
    ],
    edges=[
        *(
            Edge({"predictions": p, "targets": t}, {"alpha": alpha}, {"predictions": ZEROS})
            for alpha in (1.0, 1.5, 2.0)
            for p, t in [(RAISED, RAMP), (FLAT, FLAT), (FLAT, RAMP)]
        ),
        # blind to the sign of an edge
        Edge({"predictions": (-np.array(RAMP)).tolist(), "targets": RAMP}, gradients={"predictions": ZEROS}),
        Edge({"predictions": [[[[1e4, -1e4], [0, 1]]]], "targets": [[[[0, 0], [0, 0]]]]}),
    ],
)
def gradient_difference(predictions: Array, targets: Array, *, alpha: float) -> list[float]:
    return [
        sum(
            mean(
                [
                    abs(abs(a) - abs(b)) ** alpha
                    for a, b in zip(neighbours(p, *step), neighbours(t, *step), strict=True)
                ]
            )
            for step in ((0, 1), (1, 0))
        )
        for p, t in zip(predictions, targets, strict=True)
    ]


@oracles.of(
    "sobel_edge",
    draws=[
        ({"N": 3, "C": 1, "H": 2, "W": 5}, {"eps": 0.1}),
        ({"N": 1, "C": 2, "H": 1, "W": 1}, {}),
        ({"N": 1, "C": 2, "H": 7, "W": 3}, {"eps": 1e-10}),
    ],
    edges=[
        Edge({"predictions": FLAT, "targets": FLAT}, gradients={"predictions": ZEROS}),
        Edge({"predictions": FLAT, "targets": RAMP}, gradients={"predictions": ZEROS}),
        Edge({"predictions": RAISED, "targets": RAMP}, gradients={"predictions": ZEROS}),
        Edge({"predictions": [[[[1e4, -1e4], [0, 1]]]], "targets": [[[[0, 0], [0, 0]]]]}),
    ],
)
def sobel_edge(predictions: Array, targets: Array, *, eps: float) -> Array:
    def strength(plane: Array) -> Array:
        gx, gy = (ndimage.sobel(plane, axis, mode="nearest") / 8 for axis in (1, 0))
        return np.sqrt(gx**2 + gy**2 + eps)

    return abs(each_plane(strength, predictions) - each_plane(strength, targets))


@oracles.of(
    "laplacian",
    draws=[({"N": 3, "C": 1, "H": 2, "W": 5}, {}), ({"N": 1, "C": 2, "H": 1, "W": 1}, {})],
    edges=[
        Edge({"predictions": RAISED, "targets": RAMP}, gradients={"predictions": ZEROS}),
        Edge({"predictions": [[[[1e4, -1e4], [0, 1]]]], "targets": [[[[0, 0], [0, 0]]]]}),
    ],
)
def laplacian(predictions: Array, targets: Array) -> Array:
    def detail(plane: Array) -> Array:
        return ndimage.laplace(plane, mode="nearest")

    return abs(each_plane(detail, predictions) - each_plane(detail, targets))


@oracles.of(
    "laplacian_pyramid",
    draws=[
        ({"N": 2, "C": 3, "H": 16, "W": 24}, {"levels": 3}),
        ({"N": 1, "C": 1, "H": 4, "W": 6}, {"levels": 1}),
        ({"N": 1, "C": 1, "H": 32, "W": 32}, {"levels": 4}),
        ({"N": 1, "C": 1, "H": 8, "W": 776}, {"levels": 2}),
    ],
    edges=[
        Edge({"predictions": np.ones((1, 1, 8, 8)), "targets": np.zeros((1, 1, 8, 8))}, {"levels": 2}),
        Edge(
            {"predictions": np.ones((1, 1, 8, 8)), "targets": np.ones((1, 1, 8, 8))},
            {"levels": 2},
            {"predictions": np.zeros((1, 1, 8, 8))},
        ),
    ],
)
def laplacian_pyramid(predictions: Array, targets: Array, *, levels: int) -> Array:
    def bands(plane: Array) -> list[Array]:
        row = np.array([1, 4, 6, 4, 1]) / 16
        kernel, found = np.outer(row, row), list[Array]()
        for _ in range(levels):
            coarser = ndimage.correlate(plane, kernel, mode="mirror")[::2, ::2]
            spread = np.zeros_like(plane)
            spread[::2, ::2] = coarser
            found.append(plane - ndimage.correlate(spread, 4 * kernel, mode="mirror"))
            plane = coarser
        return [*found, plane]

    losses = np.zeros(predictions.shape[:2])
    for n, c in np.ndindex(*losses.shape):
        pairs = zip(bands(predictions[n, c]), bands(targets[n, c]), strict=True)
        losses[n, c] = sum(2**j * abs(p - t).mean() for j, (p, t) in enumerate(pairs))
    return losses.mean(1)


def each_plane(function: Any, images: Array) -> Array:
    return np.array([[function(plane) for plane in image] for image in images])
