"""Overlap of rotated boxes by clipping polygons side by side, and their hull by a chain of corners from left to right."""

from itertools import pairwise
from math import cos, log, pi, sin
from typing import Any

import numpy as np

from tests.oracles.detection.boxes import Array
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Point = tuple[float, float]

BOX = [1.0, 2.0, 6.0, 3.0, 0.4]
OTHER = [0.0, 1.0, 5.0, 4.0, -0.3]
PLAIN = [0.0, 0.0, 4.0, 2.0, 0.0]
STILL = {"boxes": [[0.0] * 5], "targets": [[0.0] * 5]}
SAME = [
    Edge({"boxes": [box], "targets": [BOX]}, gradients=STILL)
    for box in (
        BOX,
        [1.0, 2.0, 6.0, 3.0, 0.4 + pi],
        [1.0, 2.0, 6.0, 3.0, 0.4 - 2 * pi],
        [1.0, 2.0, 3.0, 6.0, 0.4 + pi / 2],
        [1.0, 2.0, 3.0, 6.0, 0.4 - pi / 2],
    )
]
ALIKE = [
    Edge({"boxes": [[1.0, 2.0, 3.0, 6.0, 0.4 + pi / 2]], "targets": [OTHER]}),
    Edge({"boxes": [BOX], "targets": [OTHER]}),
]
# sides that coincide count by half: where both move apart nothing is gained, where they part all is lost
MOVED = {"boxes": [PLAIN], "targets": [[1.0, 0.0, 4.0, 2.0, 0.0]]}
BESIDE = {"boxes": [PLAIN], "targets": [[4.0, 0.0, 4.0, 2.0, 0.0]]}
AT_A_CORNER = {"boxes": [PLAIN], "targets": [[4.0, 2.0, 4.0, 2.0, 0.0]]}
APART = {"boxes": [[0.0, 0.0, 2.0, 1.0, 0.3]], "targets": [[500.0, 300.0, 2.0, 3.0, 1.0]]}
INSIDE = {"boxes": [[0.5, 0.2, 1.0, 1.0, 0.7]], "targets": [[0.0, 0.0, 8.0, 6.0, 0.2]]}
EDGES = [
    *SAME,
    *ALIKE,
    Edge(MOVED, gradients={"boxes": [[-0.32, 0, -0.04, 0, 0]], "targets": [[0.32, 0, -0.04, 0, 0]]}),
    # inside, along one side
    Edge({"boxes": [[1.0, 0.0, 2.0, 2.0, 0.0]], "targets": [PLAIN]}),
    Edge(INSIDE, gradients={"boxes": [[0, 0, -1 / 48, -1 / 48, 0]]}),
    Edge({"boxes": INSIDE["targets"], "targets": INSIDE["boxes"]}),
    # across each other, at right angles and at half of them
    Edge({"boxes": [PLAIN], "targets": [[0.0, 0.0, 4.0, 2.0, pi / 2]]}),
    Edge({"boxes": [[0.0, 0.0, 4.0, 4.0, 0.0]], "targets": [[0.0, 0.0, 4.0, 4.0, pi / 4]]}),
    # a corner on a side, a corner in a corner
    Edge({"boxes": [[2.0 + 2**0.5, 0.0, 2.0, 2.0, pi / 4]], "targets": [[0.0, 0.0, 4.0, 4.0, 0.0]]}),
    Edge({"boxes": [[2.0, 2.0, 2.0, 2.0, pi / 4]], "targets": [[0.0, 0.0, 4.0, 4.0, 0.0]]}),
    # thin, and almost the same
    Edge({"boxes": [[0.0, 0.0, 40.0, 0.5, 0.3]], "targets": [[1.0, 0.0, 30.0, 0.4, 0.2]]}),
    Edge({"boxes": [[0.0, 0.0, 1.0, 1e-9, 0.3]], "targets": [[0.0, 0.0, 1e-9, 1.0, 0.3]]}),
    Edge({"boxes": [[0.0, 0.0, 4.0, 3.0, 0.3]], "targets": [[0.0, 0.0, 4.0, 3.0, 0.3 + 1e-9]]}),
    Edge({"boxes": [[0.0, 0.0, 1e6, 1e-6, 0.3]], "targets": [[1e3, 0.0, 1e3, 1e3, 1.2]]}),
]


@oracles.of(
    "rotated_iou",
    draws=[
        ({"...": (60,)}, {}),
        ({"...": (2, 2)}, {"mode": "log", "floor": 0.3}),
        ({"...": ()}, {"mode": "square"}),
    ],
    edges=[
        *EDGES,
        Edge(BESIDE, gradients=STILL),
        Edge(AT_A_CORNER, gradients=STILL),
        Edge(APART, gradients=STILL),
        Edge(APART, {"mode": "log"}, STILL),
    ],
)
def rotated_iou(boxes: Array, targets: Array, *, mode: str, floor: float) -> dict[str, Array]:
    def cost(first: list[Point], second: list[Point], iou: float) -> float:
        return {"linear": 1 - iou, "square": 1 - iou**2, "log": -log(max(iou, floor))}[mode]

    return each_pair(boxes, targets, cost)


@oracles.of(
    "rotated_giou",
    draws=[({"...": (60,)}, {}), ({"...": (2, 2)}, {}), ({"...": ()}, {})],
    edges=[
        *EDGES,
        Edge(
            BESIDE, gradients={"boxes": [[-0.125, 0, -0.0625, 0, 0]], "targets": [[0.125, 0, -0.0625, 0, 0]]}
        ),
        Edge(AT_A_CORNER),
        Edge(APART),
    ],
)
def rotated_giou(boxes: Array, targets: Array) -> dict[str, Array]:
    def cost(first: list[Point], second: list[Point], iou: float) -> float:
        around = area(hull([*first, *second]))
        union = (area(first) + area(second)) / (1 + iou)
        return 1 - iou + (around - union) / around

    return each_pair(boxes, targets, cost)


def each_pair(boxes: Array, targets: Array, cost: Any) -> dict[str, Array]:
    """Return the cost of every pair, and the IoU."""
    costs, shares = [], []
    for box, target in zip(boxes.reshape(-1, 5), targets.reshape(-1, 5), strict=True):
        # from the middle between them, where coordinates have most digits
        middle = (box[:2] + target[:2]) / 2
        first, second = corners(box, middle), corners(target, middle)
        both = area(clipped(first, second))
        share = both / (area(first) + area(second) - both)
        costs.append(cost(first, second, share))
        shares.append(share)
    shape = boxes.shape[:-1]
    return {"loss": np.array(costs).reshape(shape), "iou": np.array(shares).reshape(shape)}


def corners(box: Array, origin: Array) -> list[Point]:
    """Return the corners of a box, counterclockwise."""
    x, y, width, height, angle = (float(number) for number in box)
    x, y = x - float(origin[0]), y - float(origin[1])
    c, s = cos(angle), sin(angle)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [
        (x + (i * width * c - j * height * s) / 2, y + (i * width * s + j * height * c) / 2) for i, j in signs
    ]


def turn(a: Point, b: Point, c: Point) -> float:
    """Return twice the area of a triangle, which is positive counterclockwise."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def clipped(polygon: list[Point], window: list[Point]) -> list[Point]:
    """Return a polygon cut by the line of each side of a convex one, after Sutherland and Hodgman."""
    for a, b in zip(window, [*window[1:], window[0]], strict=True):
        before, polygon = polygon, []
        for p, q in zip(before, [*before[1:], *before[:1]], strict=True):
            left_p, left_q = turn(a, b, p), turn(a, b, q)
            if left_p >= 0:
                polygon.append(p)
            if left_p * left_q < 0:
                t = left_p / (left_p - left_q)
                polygon.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return polygon


def hull(points: list[Point]) -> list[Point]:
    """Return the convex hull, after Andrew."""
    chains: list[list[Point]] = []
    for ordered in (sorted(points), sorted(points, reverse=True)):
        chain: list[Point] = []
        for point in ordered:
            while len(chain) > 1 and turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1])
    return [*chains[0], *chains[1]]


def area(polygon: list[Point]) -> float:
    """Return the area of a polygon."""
    return sum(turn(polygon[0], p, q) for p, q in pairwise(polygon[1:])) / 2 if polygon else 0.0
