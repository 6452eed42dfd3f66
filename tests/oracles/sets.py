"""Matches by trying every one of them, where losses solve an assignment problem."""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def scenes(counts: Integers) -> Iterator[tuple[int, list[int]]]:
    """Yield each image with the places of its objects."""
    start = 0
    for image, count in enumerate(counts.tolist()):
        yield image, list(range(start, start + count))
        start += count


def cheapest(queries: int, objects: list[int], cost: Callable[[int, int], float]) -> dict[int, int]:
    """Return the query of each object, of all matches that leave out as few as possible."""
    every = [[cost(query, each) for each in objects] for query in range(queries)]
    if len(objects) <= queries:
        ways = (list(enumerate(way)) for way in permutations(range(queries), len(objects)))
    else:
        orders = permutations(range(len(objects)), queries)
        ways = ([(each, query) for query, each in enumerate(order)] for order in orders)
    best = min(ways, key=lambda way: sum(every[query][each] for each, query in way))
    return {objects[each]: query for each, query in best}


def matching(counts: Integers, found: dict[int, int]) -> Array:
    """Return the queries of the objects of each image in order, -1 where there is none."""
    rows = np.full((len(counts), int(counts.sum())), -1.0)
    for image, objects in scenes(counts):
        for rank, each in enumerate(objects):
            rows[image, rank] = found.get(each, -1)
    return rows


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def focal(score: float, positive: bool, alpha: float | None, gamma: float) -> float:
    """Return the focal loss of one score, by the probability of what is true."""
    p = 1 / (1 + np.exp(-score if positive else score))
    balance = 1.0 if alpha is None else alpha if positive else 1 - alpha
    return balance * (1 - p) ** gamma * -np.log(p)


def by_layer(one: Callable[..., dict[str, Any]], predictions: dict[str, Array], rank: int) -> dict[str, Any]:
    """Return the results of a reference for each layer, if predictions have one axis more than ``rank``."""
    first = next(iter(predictions.values()))
    if first.ndim == rank:
        return one(**predictions)
    each = [
        one(**{name: tensor[layer] for name, tensor in predictions.items()}) for layer in range(len(first))
    ]
    found = {name: np.stack([layer[name] for layer in each]) for name in each[0]}
    return {**found, "loss": found["loss"].sum()}
