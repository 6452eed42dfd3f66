"""Lists as a reference sees them: one at a time, without excluded items, ranked by Python's sort."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PADDED = {
    "scores": [[0.3, np.nan, 2.0, -1.0], [np.inf, 0.5, -np.inf, 0.2], [0.1, 0.2, 0.3, 0.4]],
    "targets": [[1.0, np.nan, 0.0, 2.0], [-7.0, 0.0, np.inf, 3.0], [5.0, -1.0, 2.0, np.nan]],
    "mask": [[True, False, True, True], [False, True, False, True], [False, False, False, False]],
}
"""Lists with arbitrary numbers where they are masked, the last of them without any item."""


def lists(scores: Array, targets: Array, mask: Array | None) -> Iterator[tuple[list[float], list[float]]]:
    """Yield the scores and targets of each list's valid items."""
    for i in range(len(scores)):
        valid = [j for j in range(scores.shape[1]) if mask is None or mask[i, j]]
        yield [float(scores[i, j]) for j in valid], [float(targets[i, j]) for j in valid]


def ranked(keys: list[float]) -> list[int]:
    """Return the items from the highest key, equal ones by index."""
    return sorted(range(len(keys)), key=lambda item: (-keys[item], item))


def dcg(gains: list[float], k: int | None) -> float:
    """Return the discounted gain of a list in order."""
    return sum(gain / np.log2(2 + place) for place, gain in enumerate(gains[:k]))
