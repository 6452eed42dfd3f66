"""The criterion of MaskFormer as the paper has it, image by image, with the cheapest of all matches."""

from functools import partial
from typing import Any

import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.sets import Array, Integers, by_layer, cheapest, focal, matching, scenes, softmax

oracles = Oracles()
SCENE = {
    "logits": [
        [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [0.3, 0.2, 1.5]],
        [[-1.0, 0.5, 0.0], [0.1, 0.2, 0.3], [1, 0, 2]],
    ],
    "mask_logits": [
        [[2.0, -1, 0.5, -2], [-1.0, 3, -2, 0.3], [0.5, -1, -3, 1]],
        [[-0.5, 1, 2, -1], [0.2, 0.1, -0.4, 2], [1, -1, 1, -1]],
    ],
    "labels": [0, 1, 1],
    "true_masks": [[1, 0, 0, 0], [0, 1, 1, 0], [0.2, 0.7, 0, 1]],
    "counts": [2, 1],
}
CROWD: dict[str, Any] = {
    **SCENE,
    "logits": [[[2.0, -1.0, 0.5], [0.0, 1.0, -0.5]]],
    "mask_logits": [[[2.0, -1, 0.5, -2], [-1.0, 3, -2, 0.3]]],
    "counts": [3],
}
NOTHING: dict[str, Any] = {**SCENE, "labels": np.zeros(0), "true_masks": np.zeros((0, 4)), "counts": [0, 0]}


@oracles.of(
    "mask_set",
    draws=[
        ({"B": 3, "Q": 5, "K": 6, "M": 7, "...": (9,)}, {}),
        ({"B": 3, "Q": 5, "K": 6, "M": 7, "L": 3, "...": (4, 5)}, {"num_masks": 2.5, "mask_cost": 5.0}),
        ({"B": 1, "Q": 3, "K": 3, "M": 6, "...": (4,)}, {"class_cost": 3.0, "dice_cost": 0.0}),
        ({"B": 2, "Q": 4, "K": 4, "M": 4, "...": (2, 2, 3)}, {"mask_cost": 0.0, "no_object_weight": 0.7}),
        ({"B": 2, "Q": 4, "K": 4, "M": 4, "...": (5,)}, {"focal_alpha": None, "focal_gamma": 0.0}),
        (
            {"B": 2, "Q": 4, "K": 4, "M": 4, "...": ()},
            {"focal_alpha": 0.9, "focal_gamma": 1.3, "num_masks": 0.0},
        ),
    ],
    edges=[
        Edge(SCENE),
        # no true mask in any image: nothing but the class no object
        Edge(NOTHING, gradients={"mask_logits": np.zeros((2, 3, 4)).tolist()}),
        Edge(NOTHING, {"no_object_weight": 0.0}, gradients={"logits": np.zeros((2, 3, 3)).tolist()}),
        # all masks of one image
        Edge({**SCENE, "counts": [0, 3]}),
        # more masks than queries: as many are left over
        Edge(CROWD),
        # empty and full masks
        Edge({**SCENE, "true_masks": [[0] * 4, [1] * 4, [0] * 4]}),
    ],
)
def mask_set(
    logits: Array, mask_logits: Array, labels: Integers, true_masks: Array, counts: Integers, **params: Any
) -> dict[str, Any]:
    flat = mask_logits.reshape(*logits.shape[:-1], -1)
    masks = true_masks.reshape(len(labels), flat.shape[-1])
    one = partial(_of_layer, labels=labels, masks=masks, counts=counts, **params)
    return by_layer(one, {"logits": logits, "mask_logits": flat}, 3)


def _of_layer(
    logits: Array,
    mask_logits: Array,
    labels: Integers,
    masks: Array,
    counts: Integers,
    *,
    class_cost: float,
    mask_cost: float,
    dice_cost: float,
    class_weight: float,
    mask_weight: float,
    dice_weight: float,
    no_object_weight: float,
    focal_alpha: float | None,
    focal_gamma: float,
    num_masks: float | None,
) -> dict[str, Any]:
    total = max(len(labels) if num_masks is None else num_masks, 1)
    found: dict[int, int] = {}
    mask = dice = cost = weights = 0.0

    for image, objects in scenes(counts):

        def match(query: int, each: int, image: int = image) -> float:
            scores, truth = mask_logits[image, query], masks[each]
            yes, no = (
                np.array([focal(z, inside, focal_alpha, focal_gamma) for z in scores])
                for inside in (True, False)
            )
            of_mask = float(np.mean(truth * yes + (1 - truth) * no))
            of_class = -float(softmax(logits[image, query])[labels[each]])
            return class_cost * of_class + mask_cost * of_mask + dice_cost * _dice(scores, truth)

        of_image = cheapest(logits.shape[1], objects, match)
        found |= of_image
        labelled = {query: labels[each] for each, query in of_image.items()}
        for query, scores in enumerate(logits[image]):
            weight = 1.0 if query in labelled else no_object_weight
            cost -= weight * np.log(softmax(scores)[labelled.get(query, -1)])
            weights += weight
        for each, query in of_image.items():
            pixels = zip(mask_logits[image, query], masks[each], strict=True)
            mask += np.mean([_soft_focal(z, t, focal_alpha, focal_gamma) for z, t in pixels]) / total
            dice += _dice(mask_logits[image, query], masks[each]) / total
    of_class = cost / (weights or 1.0)
    return {
        "loss": class_weight * of_class + mask_weight * mask + dice_weight * dice,
        "matching": matching(counts, found),
        "class": of_class,
        "mask": mask,
        "dice": dice,
    }


def _soft_focal(score: float, share: float, alpha: float | None, gamma: float) -> float:
    """Return the focal loss of a pixel of which a share belongs to the mask."""
    p = 1 / (1 + np.exp(-score))
    right = p * share + (1 - p) * (1 - share)
    balance = 1.0 if alpha is None else alpha * share + (1 - alpha) * (1 - share)
    return float(balance * (1 - right) ** gamma * -(share * np.log(p) + (1 - share) * np.log(1 - p)))


def _dice(scores: Array, truth: Array) -> float:
    inside = 1 / (1 + np.exp(-scores))
    return float(1 - (2 * (inside * truth).sum() + 1) / (inside.sum() + truth.sum() + 1))
