"""The Lovász extension of the Jaccard loss, as an integral of the set function over levels of the error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
NAN = float("nan")


def jaccard_of_misses(wrong: Array, truth: Array) -> float:
    """Return the Jaccard loss of the mask that is wrong in the given pixels."""
    predicted = truth ^ wrong
    union = (truth | predicted).sum()
    return float(1 - (truth & predicted).sum() / union) if union else 0.0


def extension(errors: Array, truth: Array) -> float:
    """Integrate the loss of {error >= level} over the positive levels."""
    levels = np.unique(errors[errors > 0])
    floors = np.concatenate([[0.0], levels[:-1]]) if len(levels) else levels
    steps = zip(levels, floors, strict=True)
    return sum((high - low) * jaccard_of_misses(errors >= high, truth) for high, low in steps)


@oracles.of(
    "lovasz_hinge",
    draws=[({"N": 3, "...": (4, 5)}, {}), ({"N": 4, "...": ()}, {"per_image": False, "ignore_index": 1})],
    edges=[
        # without a true pixel only the worst false positive counts
        Edge({"logits": [[1, -2, 0.5, 3]], "targets": [[0, 0, 0, 0]]}, {}, {"logits": [[0, 0, 0, 1]]}),
        Edge({"logits": [[-3, -2]], "targets": [[0, 0]]}, {}, {"logits": [[0, 0]]}),
        # ties
        Edge({"logits": [[0.5, 0.5, -0.5, -0.5]], "targets": [[1, 0, 1, 0]]}),
        Edge({"logits": [[1e4, -1e4, 1e4]], "targets": [[0, 1, 1]]}),
        # a hinge that is met exactly has no gradient
        Edge({"logits": [[1, -1]], "targets": [[1, 0]]}, {}, {"logits": [[0, 0]]}),
        Edge(
            {"logits": [[1, NAN, 0.5]], "targets": [[0, 255, 1]]},
            {"ignore_index": 255},
            {"logits": [[NAN, 0, NAN]]},
        ),
        Edge({"logits": [[1, 2]], "targets": [[9, 9]]}, {"ignore_index": 9}, {"logits": [[0, 0]]}),
    ],
)
def lovasz_hinge(logits: Array, targets: Array, *, per_image: bool, ignore_index: int | None) -> Array:
    def of(z: Array, t: Array) -> float:
        keep = np.ones(t.shape, bool) if ignore_index is None else t != ignore_index
        return extension(1 - z[keep] * (2 * t[keep] - 1), t[keep] == 1)

    if not per_image:
        return np.array(of(logits, targets))
    return np.array([of(z, t) for z, t in zip(logits, targets, strict=True)])


@oracles.of(
    "lovasz_softmax",
    draws=[
        ({"N": 3, "C": 6, "...": (3, 2)}, {}),
        ({"N": 3, "C": 6, "...": (3, 2)}, {"per_image": True}),
        ({"N": 2, "C": 4, "...": (5,)}, {"per_image": True, "classes": "all", "ignore_index": 1}),
    ],
    edges=[
        Edge(
            {"logits": [[[1, NAN], [0, 2]]], "targets": [[1, 255]]},
            {"ignore_index": 255},
            {"logits": [[[NAN, 0], [NAN, 0]]]},
        ),
        Edge(
            {"logits": [[[1, 2], [0, 2]]], "targets": [[5, 5]]},
            {"ignore_index": 5},
            {"logits": [[[0, 0], [0, 0]]]},
        ),
        Edge({"logits": [[[1, 2], [0, 2]]], "targets": [[5, 5]]}, {"ignore_index": 5, "classes": "all"}),
        Edge({"logits": [[[1e4, -1e4], [-1e4, 1e4]]], "targets": [[0, 0]]}),
        Edge({"logits": [[[0, 0, 0], [0, 0, 0]]], "targets": [[0, 1, 1]]}),
    ],
)
def lovasz_softmax(
    logits: Array, targets: Array, *, per_image: bool, classes: str, ignore_index: int | None
) -> Array:
    p = np.moveaxis(softmax(logits, axis=1), 1, -1)

    def of(p: Array, t: Array) -> float:
        keep = np.ones(t.shape, bool) if ignore_index is None else t != ignore_index
        losses = [
            extension(np.abs((t[keep] == c) - p[keep][:, c]), t[keep] == c)
            for c in range(p.shape[-1])
            if classes == "all" or (t[keep] == c).any()
        ]
        return float(np.mean(losses)) if losses else 0.0

    return (
        np.array([of(*image) for image in zip(p, targets, strict=True)])
        if per_image
        else np.array(of(p, targets))
    )
