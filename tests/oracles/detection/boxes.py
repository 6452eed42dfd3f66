"""Boxes by centre and sides, pair by pair, shared by the oracles of axis-aligned losses."""

from collections.abc import Callable
from math import hypot
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Draw, Edge

Array = NDArray[Any]


class Side(NamedTuple):
    """One axis of a pair of boxes: how far the centres lie apart, and both lengths."""

    offset: float
    length: float
    target: float

    @property
    def shared(self) -> float:
        """The length that both intervals cover."""
        return max(0.0, min(self.length, self.target, (self.length + self.target) / 2 - abs(self.offset)))

    @property
    def span(self) -> float:
        """The length of the smallest interval around both."""
        return max(self.length, self.target, (self.length + self.target) / 2 + abs(self.offset))


class Pair(NamedTuple):
    """A predicted box and its target."""

    x: Side
    y: Side
    eps: float

    @property
    def intersection(self) -> float:
        return self.x.shared * self.y.shared

    @property
    def union(self) -> float:
        return self.x.length * self.y.length + self.x.target * self.y.target - self.intersection

    @property
    def same(self) -> bool:
        """Whether both are one box."""
        return all(side.offset == 0 and side.length == side.target for side in (self.x, self.y))

    @property
    def iou(self) -> float:
        return over(self.intersection, self.union + self.eps, float(self.same))

    @property
    def enclosing(self) -> float:
        return self.x.span * self.y.span

    @property
    def distance(self) -> float:
        """The squared distance of the centres over the squared diagonal of the enclosing box."""
        diagonal = hypot(self.x.span, self.y.span)
        return over(hypot(self.x.offset, self.y.offset) ** 2, diagonal**2 + self.eps)


def over(part: float, whole: float, nothing: float = 0.0) -> float:
    """Divide; where the whole is 0 return ``nothing``."""
    return part / whole if whole else nothing


def pair(box: Array, target: Array, box_format: str, eps: float) -> Pair:
    """Return a pair of boxes of a format."""
    (x, y, w, h), (tx, ty, tw, th) = _centred(box, box_format), _centred(target, box_format)
    return Pair(Side(x - tx, w, tw), Side(y - ty, h, th), eps)


def each_pair(
    boxes: Array, targets: Array, box_format: str, eps: float, cost: Callable[[Pair], Any]
) -> dict[str, Array]:
    """Return the cost of every pair, and the IoU."""
    shape = boxes.shape[:-1]
    pairs = [
        pair(b, t, box_format, eps) for b, t in zip(boxes.reshape(-1, 4), targets.reshape(-1, 4), strict=True)
    ]
    costs = np.array([cost(p) for p in pairs], dtype=float)
    iou = np.array([p.iou for p in pairs], dtype=float)
    return {"loss": costs.reshape((*shape, *costs.shape[1:])), "iou": iou.reshape(shape)}


def _centred(box: Array, box_format: str) -> tuple[float, float, float, float]:
    """Return a box's centre and sides."""
    a, b, c, d = (float(number) for number in box)
    if box_format == "xyxy":
        return (a + c) / 2, (b + d) / 2, c - a, d - b
    return (a + c / 2, b + d / 2, c, d) if box_format == "xywh" else (a, b, c, d)


DRAWS: list[Draw] = [
    ({"...": (9,)}, {}),
    ({"...": ()}, {"box_format": "xywh"}),
    ({"...": (2, 3)}, {"box_format": "cxcywh", "eps": 0.5}),
]

POINT = Edge({"boxes": [[1.0, 2, 1, 2]], "targets": [[1.0, 2, 1, 2]]})
APART = Edge({"boxes": [[0.0, 0, 2, 1]], "targets": [[5.0, 0, 6, 9]]})
TOUCHING = Edge({"boxes": [[0.0, 0, 2, 2]], "targets": [[2.0, 0, 4, 2]]})
FLAT = Edge({"boxes": [[0.0, 0, 4, 0]], "targets": [[0.0, 0, 4, 3]]})
FIT = Edge({"boxes": [[1.0, 2, 4, 7]], "targets": [[1.0, 2, 4, 7]]})
FLAT_FIT = Edge({"boxes": [[1.0, 2, 4, 2]], "targets": [[1.0, 2, 4, 2]]})
IN_LINE = Edge({"boxes": [[1.0, 2, 4, 2]], "targets": [[2.0, 2, 7, 2]]})
POINTS = Edge({"boxes": [[1.0, 2, 1, 2]], "targets": [[4.0, 6, 4, 6]]})
POINT_IN_BOX = Edge({"boxes": [[1.0, 2, 1, 2]], "targets": [[0.0, 0, 3, 4]]})
INSIDE = Edge({"boxes": [[2.0, 2, 3, 3]], "targets": [[0.0, 0, 9, 9]]})
EDGES = [POINT, APART, TOUCHING, FLAT, FIT, FLAT_FIT, IN_LINE, POINTS, POINT_IN_BOX, INSIDE]
