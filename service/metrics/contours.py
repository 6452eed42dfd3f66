"""Segmentation by contours: how far the borders of predicted and true masks are apart."""

from collections.abc import Callable, Iterator
from functools import partial
from math import hypot, inf
from typing import Annotated

import numpy as np
from annotated_types import Ge
from scipy.ndimage import binary_erosion, distance_transform_cdt, distance_transform_edt
from torch import Tensor

from service.catalogue.domains import Between, Classes
from service.catalogue.metric import Number, Undefined, Value, Weights, metric
from service.catalogue.rounds import rounds
from service.catalogue.spec import Example, Form, Params, Prediction, Target, Values, When
from service.catalogue.table import Array, Columns, Table
from service.metrics.finishes import column, mean_defined, ratio
from service.metrics.segmentation import Count

_FORMS = (
    Form("N H W", Classes(2), When("num_classes is null", lambda params: params["num_classes"] is None)),
    Form("N H W", Classes(), When("num_classes is given", lambda params: params["num_classes"] is not None)),
)
Masks = Annotated[Tensor, Prediction(_FORMS)]
TrueMasks = Annotated[Tensor, Target(_FORMS)]
Spacing = Annotated[tuple[float, ...], Values("2", Between(1e-100, 1e100))]
"""Lengths whose squares are in range."""
DIAGONAL = 0.02
"""The width of a boundary in diagonals of the image, by default."""


def _finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Average images by class: over those where the class is at all, none if one of them is infinite."""
    values = rows["value"]
    defined, infinite = ~np.isnan(values), np.isinf(values)
    finite = np.where(defined & ~infinite, values, 0.0)

    def run(weights: Weights) -> Value:
        column_of = weights[:, None]
        sums, counts = (column_of * finite).sum(0), (column_of * defined).sum(0)
        broken = np.asarray((infinite & (column_of > 0)).any(0))
        per_class: list[Number] = [
            Undefined(
                f"{name} is only in the predictions or only in the targets of an image, so its distance is infinite"
            )
            if broken[place]
            else ratio(sums[place], counts[place], f"no image has {name}")
            for place, name in enumerate(_names(params))
        ]
        if params["num_classes"] is None:
            return per_class[0]
        return {"macro": mean_defined(per_class, "no class is defined"), "per_class": per_class}

    return run


def _names(params: Params) -> list[str]:
    """Return the names of masks in reasons."""
    count = params["num_classes"]
    return ["a mask"] if count is None else [f"class {label}" for label in range(count)]


def _each(rows: Table, params: Params) -> Array:
    """Return the mean of an image's classes, NaN where none is defined or one is infinite."""
    values = rows["value"]
    counted = ~np.isnan(values)
    sums = np.where(counted, values, 0.0).sum(1)
    return np.where(counted.any(1) & np.isfinite(sums), sums, np.nan) / np.maximum(counted.sum(1), 1)


@metric(
    title="Boundary IoU",
    tasks=("segmentation", "instance_segmentation"),
    keywords=("boundaries", "contours"),
    finish=_finish,
    each=_each,
    work=("4 predictions", "2 predictions num_classes", "2048 N", "1024 N num_classes"),
    redraw=("N/4", "N num_classes/4", "32num_classes"),
    example=Example(sizes={"H": 6, "W": 7}),
)
def boundary_iou(
    predictions: Masks,
    targets: TrueMasks,
    *,
    num_classes: Count | None = None,
    dilation: Annotated[int, Ge(1)] | None = None,
) -> Columns:
    r"""The overlap of the rims of masks, so that a large object has to be as exact as a small one.

    Formula:
        \frac{|(\hat Y_d \cap \hat Y) \cap (Y_d \cap Y)|}{|(\hat Y_d \cap \hat Y) \cup (Y_d \cap Y)|}, \quad
        Y_d \text{ the pixels at most } d \text{ from the contour of } Y

    Args:
        predictions: Masks, or classes of pixels where `num_classes` is given.
        targets: True masks, or classes.
        num_classes: The number of classes, for a value for each.
        dilation: Width d of the rim in pixels; by default 2% of the image's diagonal, rounded, and at least 1.

    Use when:
        Masks are good already, and their borders make the difference.

    Pitfalls:
        The mean of the images where the mask or class is at all. Distances are counted in steps to the eight neighbours, and the edge of the image
        is a contour too, as in the authors' code.

    Sources:
        - Cheng et al. (2021), Boundary IoU, https://arxiv.org/abs/2103.16562
    """
    height, width = targets.shape[1:]
    rim = max(1, round(DIAGONAL * hypot(height, width))) if dilation is None else dilation
    return _columns(predictions, targets, num_classes, partial(_rim_overlap, rim=rim))


@metric(
    title="Hausdorff distance, 95th percentile",
    tasks=("segmentation",),
    aliases=("hd95", "hausdorff_95"),
    keywords=("surface distance", "contours", "medical image segmentation"),
    finish=_finish,
    each=_each,
    signed=("spacing",),
    work=("8 predictions", "4 predictions num_classes", "2048 N", "1024 N num_classes"),
    redraw=("N/4", "N num_classes/4", "32num_classes"),
    example=Example(sizes={"H": 6, "W": 7}),
    higher_is_better=False,
)
def hausdorff95(
    predictions: Masks,
    targets: TrueMasks,
    *,
    num_classes: Count | None = None,
    spacing: Spacing = (1.0, 1.0),
) -> Columns:
    r"""How far contours are apart at worst, leaving out the farthest 5% of their pixels.

    Formula:
        \max\bigl(P_{95}\{d(i, \partial Y) : i \in \partial \hat Y\},\; P_{95}\{d(i, \partial \hat Y) : i \in \partial Y\}\bigr)

    Args:
        predictions: Masks, or classes of pixels where `num_classes` is given.
        targets: True masks, or classes.
        num_classes: The number of classes, for a value for each.
        spacing: Height and width of a pixel, in millimetres for instance.

    Use when:
        A part of the contour that is far off matters, as in radiotherapy, but single pixels do not.

    Pitfalls:
        The mean of the images where the mask or class is at all; if in one of them only the predictions or only the targets have
        it, the distance is infinite, and there is no mean. Percentiles are taken in each direction, as MONAI; medpy pools
        both. A contour has the pixels of a mask that touch the outside by a side, and the edge of the image is outside.

    Sources:
        - Huttenlocher et al. (1993), Comparing Images Using the Hausdorff Distance, https://doi.org/10.1109/34.232073
        - MONAI, HausdorffDistanceMetric
    """
    return _columns(predictions, targets, num_classes, partial(_percentile, spacing=spacing))


@metric(
    title="Surface Dice",
    tasks=("segmentation",),
    aliases=("normalized_surface_distance", "nsd"),
    keywords=("surface distance", "contours", "medical image segmentation", "tolerance"),
    finish=_finish,
    each=_each,
    signed=("tolerance", "spacing"),
    work=("8 predictions", "4 predictions num_classes", "2048 N", "1024 N num_classes"),
    redraw=("N/4", "N num_classes/4", "32num_classes"),
    example=Example(sizes={"H": 6, "W": 7}),
)
def surface_dice(
    predictions: Masks,
    targets: TrueMasks,
    *,
    num_classes: Count | None = None,
    spacing: Spacing = (1.0, 1.0),
    tolerance: Annotated[float, Ge(0)] = 1.0,
) -> Columns:
    r"""The share of both contours that is within a tolerance of the other.

    Formula:
        \frac{|\{i \in \partial \hat Y : d(i, \partial Y) \le \tau\}| + |\{i \in \partial Y : d(i, \partial \hat Y) \le \tau\}|}
        {|\partial \hat Y| + |\partial Y|}

    Args:
        predictions: Masks, or classes of pixels where `num_classes` is given.
        targets: True masks, or classes.
        num_classes: The number of classes, for a value for each.
        spacing: Height and width of a pixel, in millimetres for instance.
        tolerance: The distance that is acceptable, in the unit of the spacing: how far annotators differ.

    Use when:
        It matters how much of a contour somebody would have to redraw.

    Pitfalls:
        The mean of the images where the mask or class is at all; 0 where only the predictions or only the targets have it.
        Contours are counted in pixels, as MONAI; DeepMind's library weighs them by length.

    Sources:
        - Nikolov et al. (2018), Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
          radiotherapy, https://arxiv.org/abs/1809.04430
    """
    return _columns(
        predictions, targets, num_classes, partial(_share_near, spacing=spacing, tolerance=tolerance)
    )


def _columns(
    predictions: Tensor, targets: Tensor, num_classes: int | None, compare: Callable[[Array, Array], float]
) -> Columns:
    """Return the value of each mask in each image ``[N, classes]``, NaN where there is none."""
    values = np.full((len(targets), num_classes or 1), np.nan)
    predicted, true = column(predictions), column(targets)
    for image in rounds(len(true)):
        for label, masks in _masks(predicted[image], true[image], num_classes is not None):
            values[image, label] = compare(*masks)
    return {"value": values}


def _masks(predicted: Array, true: Array, by_class: bool) -> Iterator[tuple[int, tuple[Array, Array]]]:
    """Yield each class in an image with its masks, cropped to their bounding box; of masks only the foreground, as 0."""
    for label in np.union1d(predicted, true).tolist():
        if by_class or label:
            masks = predicted == label, true == label
            rows, columns = (np.flatnonzero((masks[0] | masks[1]).any(axis)) for axis in (1, 0))
            window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            yield int(label) if by_class else 0, (masks[0][window], masks[1][window])


def _rim_overlap(predicted: Array, true: Array, *, rim: int) -> float:
    """Return the intersection over union of the rims of two masks."""
    first, second = (_rim(mask, rim) for mask in (predicted, true))
    return float((first & second).sum() / (first | second).sum())


def _rim(mask: Array, width: int) -> Array:
    """Return the pixels of a mask that are at most this many steps to the eight neighbours from the outside."""
    distances: Array = distance_transform_cdt(np.pad(mask, 1), "chessboard")
    return mask & (distances[1:-1, 1:-1] <= width)


def _percentile(predicted: Array, true: Array, *, spacing: Spacing) -> float:
    """Return the larger of the 95th percentiles of distances, infinite if one mask is empty."""
    if not (predicted.any() and true.any()):
        return inf
    return max(float(np.percentile(some, 95)) for some in _distances(predicted, true, spacing))


def _share_near(predicted: Array, true: Array, *, spacing: Spacing, tolerance: float) -> float:
    """Return the share of both contours within a tolerance of the other."""
    if not (predicted.any() and true.any()):
        return 0.0
    first, second = _distances(predicted, true, spacing)
    return float(((first <= tolerance).sum() + (second <= tolerance).sum()) / (len(first) + len(second)))


def _distances(predicted: Array, true: Array, spacing: Spacing) -> tuple[Array, Array]:
    """Return the distance of each pixel of a contour from the other contour, for both."""
    first, second = (mask & ~np.asarray(binary_erosion(mask)) for mask in (predicted, true))
    to_first, to_second = (
        np.asarray(distance_transform_edt(~edge, sampling=spacing)) for edge in (first, second)
    )
    return to_second[first], to_first[second]
