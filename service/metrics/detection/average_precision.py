"""Mean average precision of detected objects, as COCO and Pascal VOC compute it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np

from service.catalogue.metric import Like, Listing, Undefined, Value, Weights, metric
from service.catalogue.spec import Example, Params
from service.catalogue.table import Array, Columns, Ragged, Table
from service.metrics.detection.effort import effort_drawn_of, effort_of
from service.metrics.detection.matching import (
    AREAS,
    THRESHOLDS,
    inside,
    matched_as_coco,
    matched_as_voc,
    near_pairs,
    spread,
)
from service.metrics.detection.objects import (
    JOINTS,
    BoxFormat,
    IouType,
    PredictedObjects,
    TrueObjects,
    counts_of_objects,
    flat,
    flaws_of,
    per_object,
)
from service.metrics.detection.overlaps import overlaps_of

VOC: Mapping[Like | None, Array] = {"voc2007": np.arange(0.0, 1.1, 0.1), "voc2012": np.zeros(0)}
"""The recalls at which VOC reads precision; from 2010 on, it integrates."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which COCO reads precision."""
SUREST = (1, 10)
"""Of a class in an image, so many detections count for `mar_1` and `mar_10`."""
MOST_DETECTIONS: Mapping[IouType, int] = {"bbox": 100, "segm": 100, "keypoints": 20}
"""Detections of a class in an image that count, the surest ones."""


Read = Callable[["_Curves"], Array]
NUMBERS: Mapping[str, tuple[Read, str]] = {
    "map": (lambda curves: curves.precision[0], ""),
    "map_50": (lambda curves: curves.precision[0, :1], ""),
    "map_75": (lambda curves: curves.precision[0, 5:6], ""),
    "map_small": (lambda curves: curves.precision[1], "small "),
    "map_medium": (lambda curves: curves.precision[2], "medium "),
    "map_large": (lambda curves: curves.precision[3], "large "),
    "mar_1": (lambda curves: curves.limited[0], ""),
    "mar_10": (lambda curves: curves.limited[1], ""),
    "mar_100": (lambda curves: curves.recall[0], ""),
    "mar_small": (lambda curves: curves.recall[1], "small "),
    "mar_medium": (lambda curves: curves.recall[2], "medium "),
    "mar_large": (lambda curves: curves.recall[3], "large "),
}
"""COCO's twelve numbers: the thresholds and classes that each averages, and the size of the true objects that it counts."""
POSE_NUMBERS: Mapping[str, tuple[Read, str]] = {
    **{name: NUMBERS[name] for name in ("map", "map_50", "map_75", "map_medium", "map_large")},
    "mar_20": NUMBERS["mar_100"],
    "mar_50": (lambda curves: curves.recall[0, :1], ""),
    "mar_75": (lambda curves: curves.recall[0, 5:6], ""),
    **{name: NUMBERS[name] for name in ("mar_medium", "mar_large")},
}
"""The ten numbers of COCO's keypoints."""
VOC_NUMBERS = {name: NUMBERS[name] for name in ("map", "map_50")}


def _most(params: Params) -> int | None:
    """Return how many detections of a class in an image count, None for all."""
    return None if params["like"] in VOC else MOST_DETECTIONS[params["iou_type"]]


def _finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Sort detections by class and score, those of equal scores by image."""
    like, poses = params["like"], params["iou_type"] == "keypoints"
    if like in VOC:
        records, recalls, numbers = _records(rows, areas=1, thresholds=1), VOC[like], VOC_NUMBERS
    else:
        records = _records(rows, areas=len(AREAS), thresholds=len(THRESHOLDS))
        recalls, numbers = RECALLS, POSE_NUMBERS if poses else NUMBERS
    return lambda weights: _shown(records.labels, _curves(records, weights, recalls), numbers)


@metric(
    title="Mean average precision",
    tasks=("detection", "instance_segmentation", "keypoints"),
    aliases=("map_coco", "detection_map"),
    keywords=("COCO", "Pascal VOC", "average recall", "object keypoint similarity"),
    finish=_finish,
    check=flaws_of,
    effort=lambda inputs, params: effort_of(inputs, params, _most(params)),
    effort_drawn=effort_drawn_of,
    likes=("voc2007", "voc2012"),
    signed=("iou_type",),
    redraw="N",
    example=Example(
        inputs={
            "predictions": [
                {
                    "boxes": [[258.0, 41.0, 606.0, 285.0], [10.0, 20.0, 60.0, 90.0]],
                    "scores": [0.54, 0.9],
                    "labels": [0, 1],
                },
                {"boxes": [[30.0, 30.0, 70.0, 80.0]], "scores": [0.7], "labels": [0]},
            ],
            "targets": [
                {"boxes": [[214.0, 41.0, 562.0, 285.0], [12.0, 20.0, 60.0, 92.0]], "labels": [0, 1]},
                {"boxes": [[30.0, 32.0, 74.0, 80.0]], "labels": [0]},
            ],
        }
    ),
)
def mean_average_precision(
    predictions: Annotated[list[PredictedObjects], Listing("prediction", PredictedObjects)],
    targets: Annotated[list[TrueObjects], Listing("target", TrueObjects)],
    *,
    iou_type: IouType = "bbox",
    box_format: BoxFormat = "xyxy",
    like: Like | None = None,
) -> Columns:
    r"""The area under the curve of precision over recall of detected objects, averaged over classes and overlaps.

    Formula:
        \frac{1}{|C|\,|T|} \sum_{c \in C} \sum_{t \in T} \frac{1}{101} \sum_{r \in \{0, 0.01, \dots, 1\}}
        \max_{r' \ge r} \mathrm{precision}_{c,t}(r'), \quad T = \{0.5, 0.55, \dots, 0.95\}

    Args:
        predictions: For each image its objects: `boxes`, `masks` or `keypoints`, with `scores` and `labels`. A mask is
            COCO's run lengths or a list of polygons, drawn in the image's `size` of height and width. Lists of numbers may be
            packed tensors.
        targets: The same without scores; `iscrowd` marks regions that may hold any number of objects, and `area` replaces
            the area of the box or mask.
        iou_type: What overlaps: boxes, masks, or poses by object keypoint similarity.
        box_format: Two corners, or a corner or the centre with width and height.
        like: `voc2007` and `voc2012` for the rules of Pascal VOC.

    Use when:
        Detectors, instance segmentation or poses are compared, as the leaderboards of COCO do. `map_50` alone is lenient
        about where an object is.

    Pitfalls:
        Keep all detections, also unsure ones: a threshold on scores cuts the curve. Of a class in an image, the 100 surest
        count (20 poses); of equal scores, those that come first. A class without true objects is left out, as its
        predictions have no recall. Areas are in pixels, so boxes scaled to 0 to 1 are all small. VOC counts the last pixel
        of a box as inside, takes the objects that `iscrowd` marks for its difficult ones, and has one threshold, 0.5. COCO's
        keypoints leave out poses without a labelled joint. Bootstrap intervals lie too high, as fewer
        different images are in a draw, and may exclude the value.

    Sources:
        - Lin et al. (2014), Microsoft COCO: Common Objects in Context, https://arxiv.org/abs/1405.0312
        - Everingham et al. (2010), The Pascal Visual Object Classes Challenge,
          https://doi.org/10.1007/s11263-009-0275-4
        - pycocotools, COCOeval
    """
    voc = like in VOC
    found, true = counts_of_objects(predictions), counts_of_objects(targets)
    crowd = per_object(targets, "iscrowd", lambda: np.zeros(int(true.sum()))) > 0
    overlaps = overlaps_of(predictions, targets, crowd & (not voc), iou_type, box_format, inclusive=voc)
    labels, true_labels = (flat(images, "labels").astype(np.int64) for images in (predictions, targets))
    scores = flat(predictions, "scores")
    image, true_image = np.repeat(np.arange(len(found)), found), np.repeat(np.arange(len(true)), true)

    _, codes = np.unique(np.concatenate([labels, true_labels]), return_inverse=True)
    classes = int(codes.max(initial=0)) + 1
    key, true_key = image * classes + codes[: len(labels)], true_image * classes + codes[len(labels) :]
    order = np.lexsort((-scores, key))
    if (most := _most({"iou_type": iou_type, "like": like})) is not None:
        order = order[_ranks(key[order]) < most]

    ignored = crowd if iou_type != "keypoints" else crowd | _unlabelled(targets)
    pairs = near_pairs(key[order], true_key, lambda i, j: overlaps.of(order[i], j))
    areas, true_areas = overlaps.areas
    if voc:
        counted = np.where(ignored, 0, 1)
        hits, matched = matched_as_voc(pairs, counted, len(order))
        misses = 1 & ~matched
    else:
        counted = np.where(ignored, 0, inside(true_areas))
        hits, matched = matched_as_coco(pairs, spread(counted), crowd, len(order))
        misses = spread(inside(areas[order])) & ~matched
    lengths = np.bincount(image[order], minlength=len(found))
    return {
        "scores": Ragged(lengths, scores[order]),
        "labels": Ragged(lengths, labels[order]),
        "hits": Ragged(lengths, hits),
        "misses": Ragged(lengths, misses),
        "true_labels": Ragged(true, true_labels),
        "counted": Ragged(true, counted.astype(np.uint8)),
    }


def _ranks(keys: Array) -> Array:
    """Return the place of each entry among those of its key; equal keys are adjacent."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))


def _unlabelled(images: Sequence[TrueObjects]) -> Array:
    """Return which poses have no labelled joint."""
    labelled: Array = flat(images, "keypoints", JOINTS, 3)[..., 2] > 0
    return np.asarray(~labelled.any(1))


@dataclass(frozen=True, slots=True)
class _Block:
    """The detections of a class that count for a range of areas, the surest first.

    ``at [n]`` are their places, and ``misses [thresholds, n]`` says where they are wrong. Of them, those at ``right [m]`` are
    right at some threshold, where ``hits [thresholds, m]`` says so: precision is greatest at these.
    """

    label: int
    area: int
    at: Array
    misses: Array
    right: Array
    hits: Array


@dataclass(frozen=True, slots=True)
class _Records:
    """Match records by class: ``rows`` and ``ranks`` of detections, the blocks, and the true objects that count.

    ``counted`` has for each range of areas the rows and the classes of true objects.
    """

    labels: Array
    rows: Array
    ranks: Array
    blocks: Sequence[_Block]
    counted: Sequence[tuple[Array, Array]]
    thresholds: int


def _records(rows: Table, *, areas: int, thresholds: int) -> _Records:
    """Unpack the records of rows."""
    found, true = rows.ragged("labels"), rows.ragged("true_labels")
    labels, codes = np.unique(np.concatenate([found.values, true.values]), return_inverse=True)
    classes, true_classes = codes[: len(found.values)], codes[len(found.values) :]
    ranks = _ranks(found.rows * max(1, len(labels)) + classes)
    order = np.lexsort((-rows.ragged("scores").values, classes))
    hits, misses = (rows.ragged(name).values[order] for name in ("hits", "misses"))
    bounds = np.searchsorted(classes[order], np.arange(len(labels) + 1)).tolist()
    bits = np.arange(thresholds)[:, None]
    blocks: list[_Block] = []
    for label, (start, stop) in enumerate(pairwise(bounds)):
        for area in range(areas):
            right, wrong = (
                (some[start:stop] >> area * thresholds) & ((1 << thresholds) - 1) for some in (hits, misses)
            )
            at = np.flatnonzero(right | wrong)
            found_right = np.flatnonzero(right[at])
            unpacked = ((some >> bits & 1).astype(bool) for some in (wrong[at], right[at][found_right]))
            missed, hit = unpacked
            blocks.append(_Block(label, area, start + at, missed, found_right, hit))
    counted = [np.flatnonzero(rows.ragged("counted").values >> area & 1) for area in range(areas)]
    return _Records(
        labels=labels,
        rows=found.rows[order],
        ranks=ranks[order],
        blocks=blocks,
        counted=[(true.rows[at], true_classes[at]) for at in counted],
        thresholds=thresholds,
    )


@dataclass(frozen=True, slots=True)
class _Curves:
    """Average precision and recall ``[areas, thresholds, classes]``, NaN without true objects; recall of the surest only."""

    precision: Array
    recall: Array
    limited: Sequence[Array]


def _curves(records: _Records, weights: Weights, recalls: Array) -> _Curves:
    """Return the averages of precision at the given recalls, or its integral if there are none, with rows weighted."""
    shape = len(records.counted), records.thresholds, len(records.labels)
    weights, slack = _scaled(weights)
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    limited = [np.full(shape[1:], np.nan) for _ in SUREST]
    count = [
        np.bincount(classes, weights=weights[rows], minlength=shape[2]) for rows, classes in records.counted
    ]
    each = weights[records.rows]
    for block in records.blocks:
        if not (total := count[block.area][block.label]):
            continue
        place = block.area, slice(None), block.label
        weight = each[block.at]
        sure = weight[block.right]
        right = np.cumsum(block.hits * sure, axis=1)
        wrong = np.cumsum(block.misses * weight, axis=1)[:, block.right]
        best: Array = right / np.maximum(right + wrong, np.finfo(np.float64).tiny)
        best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        reached: Array = right / total
        recall[place] = reached[:, -1] if len(sure) else 0.0
        if len(recalls):
            reached = np.searchsorted(recalls, reached * slack, "right") / len(recalls)
        precision[place] = reached[:, 0] * best[:, 0] if len(sure) else 0.0
        precision[place] += ((reached[:, 1:] - reached[:, :-1]) * best[:, 1:]).sum(1)
        if block.area == 0:
            ranks = records.ranks[block.at[block.right]]
            for values, most in zip(limited, SUREST, strict=True):
                values[:, block.label] = (block.hits * (sure * (ranks < most))).sum(1) / total
    return _Curves(precision, recall, limited)


def _scaled(weights: Weights) -> tuple[Weights, float]:
    """Return weights as whole numbers where they are multiples of the least, and a factor for recalls of the others.

    Sums of fractions may be off by a rounding error, for which a recall must not miss its threshold.
    """
    least = weights[weights > 0].min(initial=np.inf)
    multiples = weights / least
    whole = np.rint(multiples)
    exact = bool((np.abs(multiples - whole) <= 1e-9 * whole).all())
    return (whole, 1.0) if exact else (weights, 1 + 1e-12)


def _shown(labels: Array, curves: _Curves, numbers: Mapping[str, tuple[Read, str]]) -> Value:
    """Return the mean of each number over classes and thresholds, and over thresholds for each class."""
    value: dict[str, Value] = {}
    per_class: dict[str, dict[str, Value]] = {str(label): {} for label in labels.tolist()}
    for name, (read, size) in numbers.items():
        means = read(curves).mean(0)
        defined = means[~np.isnan(means)]
        value[name] = float(defined.mean()) if len(defined) else Undefined(f"there are no {size}targets")
        for (label, shown), mean in zip(per_class.items(), means.tolist(), strict=True):
            shown[name] = mean if mean == mean else Undefined(f"class {label} has no {size}targets")
    return {**value, "per_class": per_class}
