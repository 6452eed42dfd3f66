"""Overlaps of predicted and true objects: boxes and masks by their union, poses by the distances of their joints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from service.catalogue.table import Array
from service.metrics.detection.masks import Runs, extent, intersections, runs_of
from service.metrics.detection.objects import (
    JOINTS,
    BoxFormat,
    IouType,
    flat,
    per_object,
    sizes_in,
)

SPREADS = (
    np.array(
        [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]
    )
    / 10.0
)
"""How far annotators differ on each of COCO's joints, in units of the object's size: nose to right ankle."""
Images = Sequence[Mapping[str, Any]]


class Overlaps(Protocol):
    """Predicted and true objects that can be compared."""

    @property
    def areas(self) -> tuple[Array, Array]:
        """The areas of predicted and true objects."""
        ...

    def of(self, predicted: Array, true: Array) -> Array:
        """Return the overlaps of pairs of objects, given by their places."""
        ...


def overlaps_of(
    predictions: Images,
    targets: Images,
    crowd: Array,
    iou_type: IouType,
    box_format: BoxFormat,
    *,
    inclusive: bool,
) -> Overlaps:
    """Return the objects in images; ``crowd [true objects]`` marks regions of any number of objects.

    ``inclusive``: the last pixels of a box are inside, as in VOC.
    """
    if iou_type == "keypoints":
        return _poses(predictions, targets, box_format)
    if iou_type == "segm":
        return _masks(predictions, targets, crowd)
    predicted, true = (corner_boxes(images, box_format) for images in (predictions, targets))
    areas = per_object(targets, "area", lambda: true[:, 2] * true[:, 3])
    return _Boxes(predicted, true, crowd, (predicted[:, 2] * predicted[:, 3], areas), float(inclusive))


def corner_boxes(images: Images, box_format: BoxFormat) -> Array:
    """Return all boxes as their first corners and sides ``[objects, 4]``."""
    boxes = flat(images, "boxes", 4)
    if box_format == "xyxy":
        boxes[:, 2:] -= boxes[:, :2]
    elif box_format == "cxcywh":
        boxes[:, :2] -= boxes[:, 2:] / 2
    return boxes


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Boxes ``[objects, 4]``: x, y, width, height; ``rim`` is added to every side."""

    predicted: Array
    true: Array
    crowd: Array
    areas: tuple[Array, Array]
    rim: float

    def of(self, predicted: Array, true: Array) -> Array:
        # in the order of COCO's own arithmetic, so that an overlap is on the same side of a threshold
        first, second = self.predicted[predicted].T, self.true[true].T
        width, height = (
            np.minimum(first[side] + first[axis], second[side] + second[axis])
            - np.maximum(first[axis], second[axis])
            + self.rim
            for axis, side in ((0, 2), (1, 3))
        )
        shared = np.where((width > 0) & (height > 0), width * height, 0.0)
        area, other = ((box[2] + self.rim) * (box[3] + self.rim) for box in (first, second))
        union, crowd = area + other - shared, self.crowd[true]
        union[crowd] = area[crowd]
        return np.divide(shared, union, out=np.zeros(len(shared)), where=shared > 0)


def _masks(predictions: Images, targets: Images, crowd: Array) -> "_Masks":
    """Return masks; of an image without a size, polygons are drawn in one that has room for all of them."""
    sizes = [_size(*pair) for pair in zip(predictions, targets, strict=True)]
    predicted, true = runs_of(predictions, sizes), runs_of(targets, sizes)
    own = predicted.areas(), true.areas()
    areas = own[0].astype(np.float64), per_object(targets, "area", lambda: own[1].astype(np.float64))
    return _Masks(predicted, true, crowd, areas, own, (predicted.boxes(), true.boxes()))


def _size(*images: Mapping[str, Any]) -> list[int]:
    """Return the height and width of an image."""
    stated = next((size for image in images for _, size in sizes_in(image)), None)
    return stated or extent([part for image in images for mask in image.get("masks", ()) for part in mask])


@dataclass(frozen=True, slots=True)
class _Masks:
    """Masks, their pixels and bounds; areas may be those that a request states."""

    predicted: Runs
    true: Runs
    crowd: Array
    areas: tuple[Array, Array]
    pixels: tuple[Array, Array]
    bounds: tuple[Array, Array]

    def of(self, predicted: Array, true: Array) -> Array:
        first, second = self.bounds[0][predicted].T, self.bounds[1][true].T
        low, high = np.maximum(first[::2], second[::2]), np.minimum(first[1::2], second[1::2])
        near: Array = np.asarray((low <= high).all(0))
        shared = np.zeros(len(near), np.int64)
        shared[near] = intersections(self.predicted, self.true, predicted[near], true[near])
        area = self.pixels[0][predicted]
        union = np.where(self.crowd[true], area, area + self.pixels[1][true] - shared)
        return np.divide(shared, union, out=np.zeros(len(near)), where=shared > 0)


def _poses(predictions: Images, targets: Images, box_format: BoxFormat) -> "_Poses":
    """Return poses; the box of a true one without a box is that of its labelled joints."""
    predicted, true = (flat(images, "keypoints", JOINTS, 3) for images in (predictions, targets))
    areas = np.prod([np.ptp(predicted[..., axis], 1) for axis in (0, 1)], 0)
    labelled = true[..., 2] > 0
    boxes = _boxes_around(true, labelled)
    given = corner_boxes(targets, box_format)
    having = np.repeat(["boxes" in image for image in targets], [len(image["labels"]) for image in targets])
    boxes[having.astype(bool)] = given
    true_areas = per_object(targets, "area", lambda: boxes[:, 2] * boxes[:, 3])
    return _Poses(predicted, true, labelled, boxes, (areas, true_areas))


def _boxes_around(poses: Array, labelled: Array) -> Array:
    """Return the box around the labelled joints of each pose, of size 0 where there are none."""
    low, high = (np.where(labelled[..., None], poses[..., :2], bound) for bound in (np.inf, -np.inf))
    corners = np.concatenate([low.min(1, initial=np.inf), high.max(1, initial=-np.inf)], 1)
    corners[~labelled.any(1)] = 0
    corners[:, 2:] -= corners[:, :2]
    return corners


@dataclass(frozen=True, slots=True)
class _Poses:
    """Poses ``[objects, 17, 3]``, which true joints are labelled, and the boxes of true ones as x, y, width, height."""

    predicted: Array
    true: Array
    labelled: Array
    boxes: Array
    areas: tuple[Array, Array]

    def of(self, predicted: Array, true: Array) -> Array:
        labelled = self.labelled[true]
        seen = labelled.any(1)
        x, y, width, height = self.boxes[true].T
        scale = self.areas[1][true] + np.spacing(1)
        total = np.zeros(len(true))
        for joint, variance in enumerate((SPREADS * 2) ** 2):
            squares = np.zeros(len(true))
            for axis, (start, side) in enumerate(((x, width), (y, height))):
                place = self.predicted[predicted, joint, axis]
                # a pose without a labelled joint is only expected near its box
                beyond = np.maximum(0, start - side - place) + np.maximum(0, place - (start + side * 2))
                offset = place - self.true[true, joint, axis]
                offset[~seen] = beyond[~seen]
                squares += offset**2
            likeness = np.exp(-(squares / variance / scale / 2))
            total += np.where(labelled[:, joint] | ~seen, likeness, 0.0)
        return total / np.where(seen, labelled.sum(1), JOINTS)
