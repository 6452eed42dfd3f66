"""Triplets one by one, by scipy's distances."""

from typing import Any

from numpy.typing import NDArray
from scipy.spatial import distance as scipy_distance

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "triplet_margin",
    draws=[
        ({"N": 6, "D": 5}, {"p": 1.0, "margin": 0.3}),
        ({"N": 6, "D": 5}, {"p": 3.5, "swap": True}),
        ({"N": 6, "D": 3}, {"p": 0.5, "eps": 0.1}),
    ],
    edges=[
        # without eps the points coincide: the norms have slope 0
        Edge(
            {"anchor": [[1, 2]], "positive": [[1, 2]], "negative": [[1, 2]]},
            {"eps": 0.0},
            gradients={"anchor": [[0, 0]], "positive": [[0, 0]], "negative": [[0, 0]]},
        ),
        # exactly at the margin
        Edge(
            {"anchor": [[0, 0]], "positive": [[0, 3]], "negative": [[4, 0]]},
            {"eps": 0.0},
            gradients={"anchor": [[0, 0]], "positive": [[0, 0]], "negative": [[0, 0]]},
        ),
        Edge({"anchor": [1e4, -1e4], "positive": [-1e4, 1e4], "negative": [1e4, 1e4]}, {"p": 60.0}),
    ],
)
def triplet_margin(
    anchor: Array, positive: Array, negative: Array, *, margin: float, p: float, eps: float, swap: bool
) -> Any:
    def apart(x: Array, y: Array) -> float:
        return float(scipy_distance.minkowski(x + eps, y, p))

    if anchor.ndim == 1:
        return _cost(anchor, positive, negative, apart, margin, swap)
    return [_cost(*triplet, apart, margin, swap) for triplet in zip(anchor, positive, negative, strict=True)]


@oracles.of(
    "triplet_margin_with_distance",
    draws=[
        ({"N": 6, "D": 5}, {"distance": name, "swap": swap, "margin": 0.4})
        for name in ("euclidean", "squared_euclidean", "cosine", "manhattan")
        for swap in (False, True)
    ],
    edges=[
        Edge(
            {"anchor": [[1, 2]], "positive": [[1, 2]], "negative": [[1, 2]]},
            {"distance": name},
            gradients={"anchor": [[0, 0]], "positive": [[0, 0]], "negative": [[0, 0]]},
        )
        for name in ("euclidean", "squared_euclidean", "manhattan")
    ]
    + [
        Edge(
            {"anchor": [[1e4, 1e4]], "positive": [[-1e4, 1e4]], "negative": [[1e4, 2e4]]}, {"distance": name}
        )
        for name in ("squared_euclidean", "cosine")
    ],
)
def triplet_margin_with_distance(
    anchor: Array, positive: Array, negative: Array, *, distance: str, margin: float, swap: bool
) -> list[float]:
    apart: Any = {
        "euclidean": scipy_distance.euclidean,
        "squared_euclidean": scipy_distance.sqeuclidean,
        "cosine": scipy_distance.cosine,
        "manhattan": scipy_distance.cityblock,
    }[distance]
    return [_cost(*triplet, apart, margin, swap) for triplet in zip(anchor, positive, negative, strict=True)]


def _cost(a: Array, p: Array, n: Array, apart: Any, margin: float, swap: bool) -> float:
    to_negative = min(apart(a, n), apart(p, n)) if swap else apart(a, n)
    return max(0.0, margin + apart(a, p) - to_negative)
