"""The cost of comparing objects, estimated before any is compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.catalogue.spec import Params
from service.catalogue.table import Array
from service.metrics.detection.masks import outlines
from service.metrics.detection.objects import JOINTS, counts_of_objects, flat

_SORTED, _CLASS = 4, 1200
"""Units of work for an object and for a class in a result, measured with 3000 of either."""
_OBJECT, _PAIR, _JOINT, _RUN, _OUTLINE = 24, 4, 1, 2, 4
"""Units of work for an object, for a pair of them, a joint of a pair, a run of a pair, and a pixel of an outline."""


def effort_of(inputs: Mapping[str, Any], params: Params, most: int | None) -> int:
    """Return the units of work: of a class in an image, at most so many detections are compared, each with all true objects."""
    sides = inputs["predictions"], inputs["targets"]
    labels = [flat(images, "labels") for images in sides]
    _, codes = np.unique(np.concatenate(labels), return_inverse=True)
    where = [np.repeat(np.arange(len(images)), counts_of_objects(images)) for images in sides]
    keys = np.concatenate(where) * (int(codes.max(initial=0)) + 1) + codes
    _, groups = np.unique(keys, return_inverse=True)
    found, true = (np.bincount(some, minlength=len(groups)) for some in np.split(groups, [len(labels[0])]))
    compared = found if most is None else np.minimum(found, most)
    work = _OBJECT * len(keys) + _PAIR * int((compared * true).sum())
    if params["iou_type"] == "keypoints":
        work += _JOINT * JOINTS * int((compared * true).sum())
    elif params["iou_type"] == "segm":
        runs, drawn = zip(*map(_runs, sides), strict=True)
        first, second = (
            np.bincount(some, weights=one, minlength=len(groups))
            for some, one in zip(np.split(groups, [len(labels[0])]), runs, strict=True)
        )
        # of two masks, the one with fewer runs is looked up in the other
        looked = np.minimum(first * true, second * compared)
        work += int(_RUN * looked.sum()) + int(_OUTLINE * sum(drawn))
    return work


def effort_drawn_of(inputs: Mapping[str, Any], params: Params) -> tuple[int, int]:
    """Return the units of work to finish objects once more, and those of each class, whose curves have ten thresholds."""
    labels = np.concatenate([flat(images, "labels") for images in inputs.values()])
    return _SORTED * len(labels), _CLASS * len(np.unique(labels))


def _runs(images: Sequence[Mapping[str, Any]]) -> tuple[Array, float]:
    """Return at least as many runs as each mask has, and the pixels of outlines to draw."""
    masks = [mask for image in images for mask in image.get("masks", ())]
    runs = np.zeros(len(masks))
    owners: list[int] = []
    polygons: list[Sequence[float]] = []
    for place, mask in enumerate(masks):
        if isinstance(mask, dict):
            runs[place] = len(masks[place]["counts"]) / 2
        else:
            polygons += mask
            owners += [place] * len(mask)
    drawn = outlines(polygons)
    np.add.at(runs, np.array(owners, np.int64), drawn / 2 + 1)
    return runs, float(drawn.sum())
