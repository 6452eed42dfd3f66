"""Segmentation by areas: classes of pixels counted over all images, and segments of things and stuff."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Le, Len
from torch import Tensor

from service.catalogue.domains import Classes, ClassIndex, Integers
from service.catalogue.metric import Each, Finish, Number, Value, Weights, metric
from service.catalogue.rounds import rounds
from service.catalogue.spec import Condition, Example, Form, Params, Prediction, SizeRange, Target, Values
from service.catalogue.table import Array, Columns, Ragged, Table
from service.metrics.classification.decisions import largest
from service.metrics.finishes import column, mean_defined, ratio

CODES = 1 << 22
"""Pixels, or classes of images, to count at once."""
SPARSE = 8
"""Classes a pixel from which on sorting pixels is faster than counting every class of every image."""
MapPredictions = Annotated[
    Tensor, Prediction((Form("N C H W"), Form("N H W", Classes(ignore="ignore_index"))))
]
MapTargets = Annotated[
    Tensor,
    Target(
        (
            Form("N H W", ClassIndex("C", ignore="ignore_index")),
            Form("N H W", Classes(ignore="ignore_index")),
        )
    ),
]
Count = Annotated[int, Ge(1), Le(1 << 16)]
SAME_CLASSES = Condition(
    "/params/num_classes",
    "as many classes as there are scores of a pixel",
    lambda facts: facts.params["num_classes"],
    lambda facts: "C" not in facts.sizes or facts.params["num_classes"] in (None, facts.size("C")),
)
SOME_CLASSES = SizeRange("C", least=1)
Average = Literal["pairs", "images"]
"""What counts once in the mean of torchmetrics: each class of each image, or each image."""
REDRAW_CLASSES = ("N/2", "32C", "32num_classes")
"""The work of sums by class once more."""
Ratio = Callable[[Array, Array, Array], tuple[Array, Array]]
"""The numerators and denominators of a score from the pixels that are right, predicted and true, by class."""


def _iou(right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
    """Intersection over union."""
    return right, predicted + true - right


def _dice(right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
    """Twice the intersection over the sum."""
    return 2 * right, predicted + true


def _by_class(score: Ratio, average: Average) -> Finish:
    """Return the finish of a score of each class over all pixels, or as torchmetrics of the images' scores."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        counts = rows.ragged("counts")
        images, (label, *pixels) = counts.rows, counts.values.T
        classes = params["num_classes"] or int(max(rows["classes"].max(initial=0), label.max(initial=-1) + 1))
        if params["like"] == "torchmetrics":
            return _of_images(score, average, rows, classes)

        def run(weights: Weights) -> Value:
            each = weights[images]
            sums = (np.bincount(label, weights=each * one, minlength=classes) for one in pixels)
            per_class = _ratios(*score(*sums))
            return {"macro": mean_defined(per_class, "no pixel counts"), "per_class": per_class}

        return run

    return finish


def _of_images(score: Ratio, average: Average, rows: Table, classes: int) -> Callable[[Weights], Value]:
    """Prepare the means of the scores that classes have in images."""
    counts = rows.ragged("counts")
    above, below = score(*counts.values.T[1:].astype(np.float64))
    # a class of an image may have only pixels that do not count
    there = below > 0
    images, label, shares = counts.rows[there], counts.values[there, 0], above[there] / below[there]
    number = np.bincount(images, minlength=len(rows))
    of_image = np.bincount(images, weights=shares, minlength=len(rows)) / np.maximum(number, 1)

    def run(weights: Weights) -> Value:
        each = weights[images]
        sums, support = (
            np.bincount(label, weights=some, minlength=classes) for some in (each * shares, each)
        )
        by_image = weights * (number if average == "pairs" else number > 0)
        macro = ratio(float((by_image * of_image).sum()), float(by_image.sum()), "no pixel counts")
        return {"macro": macro, "per_class": _ratios(sums, support)}

    return run


def _ratios(above: Array, below: Array) -> list[Number]:
    """Divide the numbers of each class."""
    return [
        ratio(one, other, f"class {place} has neither targets nor predictions")
        for place, (one, other) in enumerate(zip(above, below, strict=True))
    ]


def _by_image(score: Ratio) -> Each:
    """Return the mean of an image's classes, NaN where no pixel counts."""

    def each(rows: Table, params: Params) -> Array:
        counts = rows.ragged("counts")
        above, below = score(*counts.values.T[1:].astype(np.float64))
        defined = below > 0
        shares = np.where(defined, above, 0) / np.where(defined, below, 1)
        sums, number = (
            np.bincount(counts.rows, weights=some, minlength=len(rows)) for some in (shares, defined)
        )
        return np.where(number > 0, sums, np.nan) / np.maximum(number, 1)

    return each


@metric(
    title="Mean intersection over union",
    tasks=("segmentation",),
    aliases=("miou", "mean_jaccard"),
    keywords=("Jaccard index", "Pascal VOC", "Cityscapes", "semantic segmentation"),
    finish=_by_class(_iou, "pairs"),
    redraw=REDRAW_CLASSES,
    each=_by_image(_iou),
    likes=("torchmetrics",),
    requires=(SAME_CLASSES, SOME_CLASSES),
    work="2 targets",
    example=Example(sizes={"H": 4, "W": 5}),
)
def mean_iou(
    predictions: MapPredictions,
    targets: MapTargets,
    *,
    num_classes: Count | None = None,
    ignore_index: int | None = None,
) -> Columns:
    r"""The pixels that a class shares with its prediction over those of either, averaged over classes.

    Formula:
        \frac{1}{|C|} \sum_{c} \frac{|\hat Y_c \cap Y_c|}{|\hat Y_c \cup Y_c|}, \quad
        Y_c = \{(n, h, w) : y_{nhw} = c\}

    Args:
        predictions: Classes of pixels, or scores with an axis of classes.
        targets: True classes of pixels.
        num_classes: The number of classes, if predictions are classes; otherwise one more than the largest seen.
        ignore_index: Pixels with this target do not count.

    Use when:
        Semantic segmentations are compared: the usual number of VOC, Cityscapes and ADE20K.

    Pitfalls:
        Pixels are counted over all images before dividing, so a class that is small in one image weighs little. With `like`
        torchmetrics each class of each image weighs the same, as in its MeanIoU. A class that neither targets nor predictions have is left out.

    Sources:
        - Everingham et al. (2015), The Pascal Visual Object Classes Challenge: A Retrospective,
          https://doi.org/10.1007/s11263-014-0733-5
    """
    return _counts(predictions, targets, ignore_index)


@metric(
    title="Dice score",
    tasks=("segmentation",),
    aliases=("mean_dice", "f1_of_pixels"),
    keywords=("Sørensen-Dice coefficient", "medical image segmentation", "F1"),
    finish=_by_class(_dice, "images"),
    redraw=REDRAW_CLASSES,
    each=_by_image(_dice),
    likes=("torchmetrics",),
    requires=(SAME_CLASSES, SOME_CLASSES),
    work="2 targets",
    example=Example(sizes={"H": 4, "W": 5}),
)
def dice_score(
    predictions: MapPredictions,
    targets: MapTargets,
    *,
    num_classes: Count | None = None,
    ignore_index: int | None = None,
) -> Columns:
    r"""Twice the pixels that a class shares with its prediction over the sum of both, averaged over classes.

    Formula:
        \frac{1}{|C|} \sum_{c} \frac{2\,|\hat Y_c \cap Y_c|}{|\hat Y_c| + |Y_c|}, \quad
        Y_c = \{(n, h, w) : y_{nhw} = c\}

    Args:
        predictions: Classes of pixels, or scores with an axis of classes.
        targets: True classes of pixels.
        num_classes: The number of classes, if predictions are classes; otherwise one more than the largest seen.
        ignore_index: Pixels with this target do not count.

    Use when:
        Segmentations of organs and lesions are compared, as is usual in medicine.

    Pitfalls:
        Never below the intersection over union of the same masks, so the two cannot be compared. Counted over all pixels; with
        `like` torchmetrics it is the mean of the images' values, as in its DiceScore. Class 0 counts like others: look at `per_class` where it is the background.

    Sources:
        - Dice (1945), Measures of the Amount of Ecologic Association Between Species, https://doi.org/10.2307/1932409
    """
    return _counts(predictions, targets, ignore_index)


def _finish_accuracy(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Divide the pixels that are right by those that count."""
    right, counted = (rows[name].astype(np.float64) for name in ("right", "counted"))
    return lambda weights: ratio(
        float((weights * right).sum()), float((weights * counted).sum()), "no pixel counts"
    )


def _accuracy_of_images(rows: Table, params: Params) -> Array:
    """Return the accuracy of each image, NaN where no pixel counts."""
    return np.where(rows["counted"] > 0, rows["right"], np.nan) / np.maximum(rows["counted"], 1)


@metric(
    title="Pixel accuracy",
    tasks=("segmentation",),
    finish=_finish_accuracy,
    each=_accuracy_of_images,
    requires=(SAME_CLASSES, SOME_CLASSES),
    work="2 targets",
    example=Example(sizes={"H": 4, "W": 5}),
)
def pixel_accuracy(
    predictions: MapPredictions,
    targets: MapTargets,
    *,
    num_classes: Count | None = None,
    ignore_index: int | None = None,
) -> Columns:
    r"""The share of pixels whose class is right.

    Formula:
        \frac{|\{(n, h, w) : \hat y_{nhw} = y_{nhw}\}|}{NHW}

    Args:
        predictions: Classes of pixels, or scores with an axis of classes.
        targets: True classes of pixels.
        num_classes: The number of classes, if predictions are classes.
        ignore_index: Pixels with this target do not count.

    Use when:
        Classes cover similar areas, or as a companion of the intersection over union.

    Pitfalls:
        A large background makes any prediction look good. Counted over all pixels, not a mean of images.

    Sources:
        - Long et al. (2015), Fully Convolutional Networks for Semantic Segmentation, https://arxiv.org/abs/1411.4038
    """
    classes = _classes(predictions)
    right = (classes == targets).flatten(1)
    counted = torch.ones_like(right) if ignore_index is None else (targets != ignore_index).flatten(1)
    return {"right": column((right & counted).sum(1)), "counted": column(counted.sum(1))}


def _classes(predictions: Tensor) -> Tensor:
    """Return the classes of pixels, those with the highest scores."""
    return largest(predictions) if predictions.dim() == 4 else predictions


def _counts(predictions: Tensor, targets: Tensor, ignore_index: int | None) -> Columns:
    """Return the classes in each image, with the pixels that are right, predicted and true: ``[class, 3 counts]``."""
    predicted, true = (column(one.flatten(1)) for one in (_classes(predictions), targets))
    classes = int(max(predicted.max(initial=0), true.max(initial=0))) + 1
    step = max(1, CODES // max(1, min(classes, SPARSE * true.shape[1]), true.shape[1]))
    found = [
        _counted(predicted[start : start + step], true[start : start + step], classes, ignore_index)
        for start in rounds(0, max(1, len(true)), step)
    ]
    given = predictions.shape[1] if predictions.dim() == 4 else 0
    return {
        "classes": np.full(len(true), given, np.int32),
        "counts": Ragged(
            np.concatenate([one.lengths for one in found]), np.concatenate([one.values for one in found])
        ),
    }


def _counted(predicted: Array, true: Array, classes: int, ignore_index: int | None) -> Ragged:
    """Count the pixels of some images."""
    images = np.arange(len(true))[:, None] * classes
    counts = true != ignore_index if ignore_index is not None else np.ones(true.shape, bool)
    # a prediction may be the ignored value, which is no class
    chosen = counts & (predicted != ignore_index) if ignore_index is not None else counts
    codes = [
        (images + true)[counts & (predicted == true)],
        (images + predicted)[chosen],
        (images + true)[counts],
    ]
    if classes <= SPARSE * true.shape[1]:
        dense = np.stack([np.bincount(one, minlength=len(true) * classes) for one in codes], 1)
        present = np.flatnonzero(dense.any(1))
        found = dense[present]
    else:
        present = np.unique(np.concatenate(codes[1:]))
        found = np.stack(
            [np.bincount(np.searchsorted(present, one), minlength=len(present)) for one in codes], 1
        )
    lengths = np.bincount(present // classes, minlength=len(true))
    return Ragged(lengths, np.concatenate([(present % classes)[:, None], found], 1))


APART = Condition(
    "/params/stuffs",
    "at least one class, and none that is among the things",
    lambda facts: list(facts.params["stuffs"]),
    lambda facts: (
        bool(facts.params["things"] or facts.params["stuffs"])
        and not {*facts.params["things"]} & {*facts.params["stuffs"]}
    ),
)
MOST_CATEGORIES = Len(0, 1 << 12)


def _finish_panoptic(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Divide the sums of matched segments by class."""
    quality, right, wrong, missed = (rows[name] for name in ("quality", "right", "wrong", "missed"))
    labels = [str(label) for label in _categories(params["things"], params["stuffs"])]

    def run(weights: Weights) -> Value:
        total, tp, fp, fn = ((weights[:, None] * one).sum(0) for one in (quality, right, wrong, missed))
        per_class: dict[str, dict[str, Number]] = {}
        for place, label in enumerate(labels):
            segments = tp[place] + (fp[place] + fn[place]) / 2
            absent = f"class {label} has neither targets nor predictions"
            unmatched = f"class {label} has no matched segments" if segments else absent
            per_class[label] = {
                "pq": ratio(total[place], segments, absent),
                "sq": ratio(total[place], tp[place], unmatched),
                "rq": ratio(tp[place], segments, absent),
            }
        means = {
            name: mean_defined([one[name] for one in per_class.values()], "no class has segments")
            for name in ("pq", "sq", "rq")
        }
        return {**means, "per_class": per_class}

    return run


@metric(
    title="Panoptic quality",
    tasks=("segmentation", "instance_segmentation"),
    aliases=("pq",),
    keywords=("panoptic segmentation", "things and stuff", "segmentation quality", "recognition quality"),
    finish=_finish_panoptic,
    requires=(APART,),
    work=("4 targets", "2048 N"),
    redraw=("N/4", "N T/2", "N S/2", "256T", "256S"),
    example=Example(
        inputs={
            "predictions": [[[[0, 1], [0, 1], [2, 0]], [[0, 1], [0, 2], [2, 0]]]],
            "targets": [[[[0, 1], [0, 1], [2, 0]], [[0, 1], [0, 1], [1, 5]]]],
        },
        params={"things": (0, 1), "stuffs": (2,)},
    ),
)
def panoptic_quality(
    predictions: Annotated[Tensor, Prediction("N H W 2", Integers())],
    targets: Annotated[Tensor, Target("N H W 2", Integers())],
    *,
    things: Annotated[tuple[int, ...], Values("T", Integers()), MOST_CATEGORIES],
    stuffs: Annotated[tuple[int, ...], Values("S", Integers()), MOST_CATEGORIES],
) -> Columns:
    r"""The overlap of matched segments, times the share of segments that match: things and stuff in one number.

    Formula:
        \frac{\sum_{(p, g) \in TP} \mathrm{IoU}(p, g)}{|TP| + \tfrac{1}{2} |FP| + \tfrac{1}{2} |FN|}, \quad
        TP = \{(p, g) : \mathrm{IoU}(p, g) > 0.5\}

    Args:
        predictions: The class and the instance of each pixel.
        targets: The true class and instance of each pixel; other classes than those listed are void.
        things: Classes with instances.
        stuffs: Classes without: all their pixels in an image are one segment, whatever their instance.

    Use when:
        Every pixel gets a class, and every object an instance.

    Pitfalls:
        Void pixels of the targets are taken from the predicted segments, and a segment that is mostly void is no error; void
        pixels of the predictions count as missed. A class whose segments all fail to match has `pq` and `rq` 0, but no `sq`.

    Sources:
        - Kirillov et al. (2019), Panoptic Segmentation, https://arxiv.org/abs/1801.00868
    """
    categories = np.array(_categories(things, stuffs), np.int64)
    found = np.zeros((4, len(targets), len(categories)))
    predicted, true = column(predictions), column(targets)
    for image in rounds(len(true)):
        found[:, image] = _matched(predicted[image], true[image], categories, np.array(stuffs, np.int64))
    quality, *counts = found
    right, wrong, missed = (one.astype(np.int32) for one in counts)
    return {"quality": quality, "right": right, "wrong": wrong, "missed": missed}


def _categories(things: Any, stuffs: Any) -> list[int]:
    """Return the classes in ascending order."""
    return sorted({*things, *stuffs})


def _matched(predicted: Array, true: Array, categories: Array, stuffs: Array) -> Array:
    """Return for an image the sum of overlaps, and the numbers of matched, wrong and missed segments, by class."""
    (first, labels), (second, true_labels) = (_segments(one, categories, stuffs) for one in (predicted, true))
    # the last segment of each is void, whose class is one more than there are
    shape = len(labels), len(true_labels)
    codes, shared = np.unique(first * shape[1] + second, return_counts=True)
    i, j = codes // shape[1], codes % shape[1]
    areas, true_areas = (np.bincount(one, minlength=n) for one, n in zip((first, second), shape, strict=True))
    void = np.zeros(shape[0], np.int64)
    void[i[j == shape[1] - 1]] = shared[j == shape[1] - 1]
    union = areas[i] - void[i] + true_areas[j] - shared
    count = len(categories)
    # a pair of void segments has no union
    match = (labels[i] == true_labels[j]) & (labels[i] < count) & (2 * shared > union)
    overlaps = shared[match] / union[match]
    wrong = (labels < count) & (2 * void <= areas)
    wrong[i[match]] = False
    missed = true_labels < count
    missed[j[match]] = False
    return np.stack(
        [
            np.bincount(labels[i[match]], weights=overlaps, minlength=count),
            np.bincount(labels[i[match]], minlength=count),
            np.bincount(labels[wrong], minlength=count),
            np.bincount(true_labels[missed], minlength=count),
        ]
    )


def _segments(image: Array, categories: Array, stuffs: Array) -> tuple[Array, Array]:
    """Return the segment of each pixel, and the place of each segment's class; the last segment is void."""
    label, instance = image.reshape(-1, 2).astype(np.int64).T
    place = np.searchsorted(categories, label)
    known = categories[np.minimum(place, len(categories) - 1)] == label
    instances, codes = np.unique(instance, return_inverse=True)
    codes = np.where(np.isin(label, stuffs), 0, codes)
    keys = np.where(known, place * len(instances) + codes, len(categories) * len(instances))
    found, segments = np.unique(keys, return_inverse=True)
    void = len(categories) * len(instances)
    labels = found[found != void] // max(1, len(instances))
    return segments, np.append(labels, len(categories))
