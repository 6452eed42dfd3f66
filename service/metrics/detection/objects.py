"""The objects in an image as requests send them: boxes, masks or poses, with labels and scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from annotated_types import Ge, Le, Len
from typing_extensions import TypedDict

from service.catalogue.metric import Flaw
from service.catalogue.spec import Params
from service.catalogue.table import Array
from service.metrics.detection.masks import decoded_counts, sums_of

MOST_OBJECTS = 10_000
"""Most objects in an image: each is compared with all others of its class."""
JOINTS = 17
"""Joints of a pose: COCO's, nose to right ankle."""

IouType = Literal["bbox", "segm", "keypoints"]
BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
Coordinate = Annotated[float, Ge(-1e9), Le(1e9)]
Few = Len(0, MOST_OBJECTS)
Box = Annotated[list[Coordinate], Len(4, 4)]
Joint = Annotated[list[Coordinate], Len(3, 3)]
Pose = Annotated[list[Joint], Len(JOINTS, JOINTS)]
Polygon = Annotated[list[Annotated[float, Ge(-(2**15)), Le(2**16)]], Len(6)]
Size = Annotated[list[Annotated[int, Ge(1), Le(2**16)]], Len(2, 2)]
Label = Annotated[int, Ge(-(2**53)), Le(2**53)]


class RunLengths(TypedDict):
    """A mask as run lengths down its columns: COCO's compressed string, or a list."""

    size: Size
    counts: str | list[Annotated[int, Ge(0), Le(2**32)]]


Mask = RunLengths | Annotated[list[Polygon], Len(1)]


class _Objects(TypedDict):
    """The members that predicted and true objects share; ``size`` is the image's height and width, for polygons."""

    labels: Annotated[list[Label], Few]
    boxes: NotRequired[Annotated[list[Box], Few]]
    masks: NotRequired[Annotated[list[Mask], Few]]
    keypoints: NotRequired[Annotated[list[Pose], Few]]
    size: NotRequired[Size]


class PredictedObjects(_Objects):
    """The objects that a model finds in an image."""

    scores: Annotated[list[float], Few]


class TrueObjects(_Objects):
    """The true objects in an image."""

    iscrowd: NotRequired[Annotated[list[bool | Literal[0, 1]], Few]]
    area: NotRequired[Annotated[list[Annotated[float, Ge(0), Le(1e18)]], Few]]


GEOMETRY: Mapping[IouType, str] = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
"""The member that each type of overlap compares."""


def flaws_of(inputs: Mapping[str, Any], params: Params) -> Iterator[Flaw]:
    """Yield what is wrong with objects beyond their types."""
    member = GEOMETRY[params["iou_type"]]
    found = [flaw for name in inputs for flaw in _lengths(name, inputs[name], member)]
    yield from found
    if found:
        return
    for name, images in inputs.items():
        if any("boxes" in image for image in images):
            yield from _boxes(name, images, params["box_format"])
    if member == "masks":
        found = [flaw for name in inputs for flaw in _masks(name, inputs[name])]
        yield from found or _sizes(inputs["predictions"], inputs["targets"])


def _lengths(name: str, images: Sequence[Mapping[str, Any]], member: str) -> Iterator[Flaw]:
    """Check that objects have the compared member, and a value for each label in every one."""
    for place, image in enumerate(images):
        count = len(image["labels"])
        if member not in image and count:
            yield Flaw((name, place), f"the member {member}, which iou_type compares", "none")
        for key, values in image.items():
            if key != "size" and len(values) != count:
                yield Flaw((name, place, key), f"{count} values, as there are labels", str(len(values)))


def _boxes(name: str, images: Sequence[Mapping[str, Any]], box_format: BoxFormat) -> Iterator[Flaw]:
    """Check that no box has a negative side."""
    boxes, places = flat(images, "boxes", 4), places_of_objects(images, "boxes")
    sides = boxes[:, 2:] - boxes[:, :2] if box_format == "xyxy" else boxes[:, 2:]
    words = "x1 <= x2 and y1 <= y2" if box_format == "xyxy" else "a width and a height of at least 0"
    for one in np.flatnonzero((sides < 0).any(1)):
        yield Flaw((name, places[0][one], "boxes", places[1][one]), words, str(boxes[one].tolist()))


def _masks(name: str, images: Sequence[Mapping[str, Any]]) -> Iterator[Flaw]:
    """Check that run lengths can be decoded and fill their mask, and that polygons are pairs."""
    masks = [mask for image in images for mask in image.get("masks", ())]
    where = [*zip(*places_of_objects(images, "masks"), strict=True)]
    coded = [place for place, mask in enumerate(masks) if isinstance(mask, dict)]
    counts, broken = decoded_counts([masks[place]["counts"] for place in coded])
    if broken is not None:
        image, index = where[coded[broken]]
        yield Flaw((name, image, "masks", index, "counts"), "COCO's compressed run lengths", "another text")
    else:
        pixels = np.array([masks[place]["size"][0] * masks[place]["size"][1] for place in coded], np.int64)
        sums = sums_of(counts.values, counts.lengths)
        negative = sums_of(counts.values < 0, counts.lengths) > 0
        for place in np.flatnonzero((sums != pixels) | negative).tolist():
            image, index = where[coded[place]]
            expected = f"run lengths of at least 0 that sum to {pixels[place]}"
            got = "negative ones" if negative[place] else f"a sum of {sums[place]}"
            yield Flaw((name, image, "masks", index, "counts"), expected, got)
    for (image, index), mask in zip(where, masks, strict=True):
        for part, polygon in enumerate([] if isinstance(mask, dict) else mask):
            if len(polygon) % 2:
                path = (name, image, "masks", index, part)
                yield Flaw(path, "pairs of x and y", f"{len(polygon)} numbers")


def _sizes(predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> Iterator[Flaw]:
    """Check that all masks in an image have one size."""
    for place, pair in enumerate(zip(predictions, targets, strict=True)):
        expected: list[int] | None = None
        for name, image in zip(("predictions", "targets"), pair, strict=True):
            for path, size in sizes_in(image):
                expected = expected or size
                if size != expected:
                    yield Flaw((name, place, *path), f"one size an image, {expected}", str(size))


def sizes_in(image: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], list[int]]]:
    """Yield the sizes that an image states, with their paths."""
    if "size" in image:
        yield ("size",), image["size"]
    for index, mask in enumerate(image.get("masks", ())):
        if isinstance(mask, dict):
            yield ("masks", index, "size"), mask["size"]


def counts_of_objects(images: Sequence[Mapping[str, Any]]) -> Array:
    """Return the number of objects in each image."""
    return np.fromiter((len(image["labels"]) for image in images), np.int64, len(images))


def flat(images: Sequence[Mapping[str, Any]], member: str, *shape: int) -> Array:
    """Return a member of all objects, one image after another, as float64 ``[objects, *shape]``."""
    values: Any = chain.from_iterable(image.get(member, ()) for image in images)
    for _ in shape:
        values = chain.from_iterable(values)
    return np.fromiter(values, np.float64).reshape(-1, *shape[:-1], *shape[-1:])


def places_of_objects(images: Sequence[Mapping[str, Any]], member: str) -> tuple[list[int], list[int]]:
    """Return the image of each object that has a member, and its place in there."""
    pairs = [(i, j) for i, image in enumerate(images) for j in range(len(image.get(member, ())))]
    return [i for i, _ in pairs], [j for _, j in pairs]


def per_object(images: Sequence[Mapping[str, Any]], member: str, default: Callable[[], Array]) -> Array:
    """Return one number an object, and the default where an image does not have the member."""
    if all(member in image for image in images):
        return flat(images, member)
    values = default().copy()
    ends = np.cumsum(counts_of_objects(images))
    for end, image in zip(ends.tolist(), images, strict=True):
        if member in image:
            values[end - len(image[member]) : end] = image[member]
    return values
