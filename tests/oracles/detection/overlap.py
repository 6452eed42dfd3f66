"""Overlap losses from intervals: the overlap of two boxes from centres and half sides, not corners."""

from math import log

from tests.oracles.detection.boxes import APART, DRAWS, EDGES, TOUCHING, Array, Pair, Side, each_pair, over
from tests.oracles.detection.distance import angle_mismatch, weighted
from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
STILL = [[0, 0, 0, 0]]


def unmoved(edge: Edge, **params: object) -> Edge:
    """Return an edge at which the predicted box has no gradient."""
    return Edge(edge.inputs, params, {"boxes": STILL})


@oracles.of(
    "iou",
    draws=[*DRAWS, ({"...": (5,)}, {"mode": "log", "floor": 0.5})],
    edges=[
        *EDGES,
        *(Edge(edge.inputs, {"mode": mode}) for edge in EDGES for mode in ("square", "log")),
        *(unmoved(edge, mode=mode) for edge in (APART, TOUCHING) for mode in ("linear", "square", "log")),
    ],
)
def iou(
    boxes: Array, targets: Array, *, mode: str, floor: float, box_format: str, eps: float
) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        if mode == "log":
            return -log(p.iou) if p.iou > floor else -log(floor)
        return 1 - p.iou ** (2 if mode == "square" else 1)

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of("giou", draws=DRAWS, edges=EDGES)
def giou(boxes: Array, targets: Array, *, box_format: str, eps: float) -> dict[str, Array]:
    return each_pair(boxes, targets, box_format, eps, lambda p: 1 - p.iou + empty(p))


@oracles.of(
    "inner_iou",
    draws=[*DRAWS, ({}, {"ratio": 1.0}), ({"...": (6,)}, {"ratio": 1.4})],
    # boxes that overlap, but no longer once they are shrunk
    edges=[*EDGES, unmoved(Edge({"boxes": [[0.0, 0, 4, 4]], "targets": [[3.9, 0, 8, 4]]}))],
)
def inner_iou(boxes: Array, targets: Array, *, ratio: float, box_format: str, eps: float) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        x, y = (Side(side.offset, ratio * side.length, ratio * side.target) for side in (p.x, p.y))
        return 1 - Pair(x, y, eps).iou

    return each_pair(boxes, targets, box_format, eps, cost)


@oracles.of(
    "alpha_iou",
    draws=[
        *DRAWS,
        *(({"...": (5,)}, {"variant": v, "alpha": a}) for v in ("giou", "ciou") for a in (1.0, 0.4)),
    ],
    edges=[
        *EDGES,
        unmoved(APART, alpha=0.5),
        *(
            Edge(edge.inputs, {"variant": v, "alpha": 0.5})
            for edge in EDGES
            for v in ("giou", "diou", "ciou")
        ),
    ],
)
def alpha_iou(
    boxes: Array, targets: Array, *, alpha: float, variant: str, floor: float, box_format: str, eps: float
) -> dict[str, Array]:
    def cost(p: Pair) -> float:
        terms = {
            "iou": [],
            "giou": [empty(p)],
            "diou": [p.distance],
            "ciou": [p.distance, weighted(p, angle_mismatch(p))],
        }[variant]
        # the rounding of a difference is no empty corner
        powers = (term * max(term, floor) ** (alpha - 1) for term in terms if term > 1e-15)
        return 1 - max(p.iou, floor) ** alpha + sum(powers)

    return each_pair(boxes, targets, box_format, eps, cost)


def empty(p: Pair) -> float:
    """Return the share of the enclosing box that neither box covers."""
    return over(p.enclosing - p.union, p.enclosing + p.eps)
