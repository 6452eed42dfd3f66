"""Random objects in images, and what pycocotools says about them."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 120, 160
NUMBERS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
POSE_NUMBERS = (
    *("map", "map_50", "map_75", "map_medium", "map_large"),
    *("mar_20", "mar_50", "mar_75", "mar_medium", "mar_large"),
)
Objects = dict[str, Any]
Kind = Literal["boxes", "runs", "polygons", "keypoints"]


def images(
    kind: Kind, count: int, *, classes: int = 4, objects: float = 5, seed: int = 0
) -> tuple[list[Objects], list[Objects]]:
    """Return predictions and targets: near misses, strangers, ties of scores, crowds, and images without objects."""
    rng = np.random.default_rng(seed)
    pairs = [_image(kind, rng, classes, objects if place % 7 != 3 else 0) for place in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _image(kind: Kind, rng: np.random.Generator, classes: int, objects: float) -> tuple[Objects, Objects]:
    member = {"boxes": "boxes", "keypoints": "keypoints"}.get(kind, "masks")
    found: Objects = {member: [], "scores": [], "labels": []}
    true: Objects = {member: [], "labels": [], "iscrowd": []}
    if kind == "polygons":
        true["size"] = [HEIGHT, WIDTH]
    if kind == "keypoints":
        true |= {"area": [], "boxes": []}
    for _ in range(rng.poisson(objects)):
        size = np.exp(rng.uniform(1, 4.3))
        centre, label = rng.uniform(0, [WIDTH, HEIGHT]), int(rng.integers(classes))
        shape = _shape(kind, rng, centre, size)
        true[member].append(_sent(kind, shape))
        true["labels"].append(label)
        true["iscrowd"].append(int(rng.random() < 0.1))
        if kind == "keypoints":
            true["area"].append(float(size * size * 2))
            true["boxes"].append([*(centre - size), *(centre + size)])
        for _ in range(rng.integers(0, 4)):
            moved = [_moved(kind, rng, part, size) for part in shape]
            found[member].append(_sent(kind, moved))
            found["labels"].append(label if rng.random() < 0.9 else int(rng.integers(classes)))
            found["scores"].append(round(float(rng.random()), 1))
    return found, true


def _shape(kind: Kind, rng: np.random.Generator, centre: Any, size: float) -> list[Any]:
    """Return the parts of an object as points ``[points, 2]``, with a flag for joints."""
    if kind == "boxes":
        return [np.stack([centre, centre + size * rng.uniform(0.5, 1.5, 2)])]
    if kind == "keypoints":
        flags = rng.integers(0, 3, (17, 1)) * (rng.random() < 0.85)
        return [np.concatenate([(centre + rng.uniform(-size, size, (17, 2))) * (flags > 0), flags], 1)]
    shapes: list[Any] = []
    for _ in range(1 + (rng.random() < 0.3)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        radii = size * rng.uniform(0.3, 1.2, len(angles))
        shapes.append(
            centre
            + rng.normal(0, size / 2, 2)
            + np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
        )
    return shapes


def _moved(kind: Kind, rng: np.random.Generator, part: Any, size: float) -> Any:
    noise = rng.normal(0, size * rng.choice([0.02, 0.1]), part[:, :2].shape)
    moved = np.concatenate([part[:, :2] + noise, part[:, 2:]], 1)
    return np.sort(moved, 0) if kind == "boxes" else moved


def _sent(kind: Kind, parts: list[Any]) -> Any:
    if kind == "boxes":
        return parts[0].ravel().tolist()
    if kind == "keypoints":
        return parts[0].tolist()
    polygons = [part.ravel().tolist() for part in parts]
    if kind == "polygons":
        return polygons
    merged = encoded(polygons)
    # every other one as a list
    if rle.area(merged) % 2:
        return {"size": [HEIGHT, WIDTH], "counts": merged["counts"].decode()}
    flat = pixels(merged)
    bounds = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *bounds, len(flat)]).tolist()}


def encoded(mask: Any, size: Sequence[int] = (HEIGHT, WIDTH)) -> Any:
    """Return a mask as pycocotools has it."""
    if isinstance(mask, list):
        return rle.merge(rle.frPyObjects(mask, *size))
    if isinstance(mask["counts"], list):
        return rle.frPyObjects(mask, *size)
    return {"size": mask["size"], "counts": mask["counts"].encode()}


def pixels(mask: Any) -> Any:
    """Return the pixels of a mask, down its columns."""
    with warnings.catch_warnings():
        # pycocotools has not yet followed numpy 2
        warnings.simplefilter("ignore", DeprecationWarning)
        return rle.decode(mask).T.ravel()


def evaluated(predictions: list[Objects], targets: list[Objects], kind: Kind) -> COCOeval:
    """Return the evaluation of pycocotools."""
    true = [one for place, image in enumerate(targets) for one in _annotations(image, place, kind)]
    for place, one in enumerate(true):
        one["id"] = place + 1
    found = [one for place, image in enumerate(predictions) for one in _annotations(image, place, kind)]
    labels = sorted({one["category_id"] for one in true + found})
    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": place, "height": HEIGHT, "width": WIDTH} for place in range(len(targets))],
        "annotations": true,
        "categories": [{"id": label, "name": str(label)} for label in labels],
    }
    iou_type: Any = {"boxes": "bbox", "keypoints": "keypoints"}.get(kind, "segm")
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _annotations(image: Objects, place: int, kind: Kind) -> list[Objects]:
    """Return the objects of an image as COCO writes them."""
    found: list[Objects] = []
    for index, label in enumerate(image["labels"]):
        one: Objects = {"image_id": place, "category_id": label}
        if "scores" in image:
            one["score"] = image["scores"][index]
        else:
            one["iscrowd"] = image["iscrowd"][index]
        if "boxes" in image:
            x1, y1, x2, y2 = image["boxes"][index]
            one |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        if "masks" in image:
            mask = encoded(image["masks"][index])
            one |= {"segmentation": mask, "area": float(rle.area(mask))}
            # a result with a box would have the area of that
            one |= {} if "scores" in image else {"bbox": [0, 0, 1, 1]}
        if "keypoints" in image:
            joints = np.array(image["keypoints"][index])
            one |= {"keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum())}
            one |= {"area": image["area"][index]} if "area" in image else {}
        found.append(one)
    return found
