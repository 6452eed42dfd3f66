"""Print one table: seconds of our metrics, and of scikit-learn, torchmetrics and pycocotools for the same numbers.

``python -m benchmarks.metrics [images]`` takes 5,000 images by default; pycocotools takes half a minute for these.
"""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
import torchmetrics.functional.classification as peer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.catalogue.table import table
from service.metrics import METRICS

# without type stubs
scikit: Any = import_module("sklearn.metrics")
IMAGES, CLASSES = 5_000, 80
SAMPLES, LABELS = 1_000_000, 10
NUMBERS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
Objects = Mapping[str, Any]


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    print(f"{'metric':50} {'ours':>8} {'again':>8} {'peer':>8}  largest difference")
    _detection(*scenes(count, CLASSES))
    rng = np.random.default_rng(0)
    targets = rng.integers(0, LABELS, SAMPLES)
    predictions = np.where(rng.random(SAMPLES) < 0.7, targets, rng.integers(0, LABELS, SAMPLES))
    _classes("f1", predictions, targets)
    _scores("auroc", rng.normal(size=SAMPLES) + (targets > 4), (targets > 4).astype(np.int64))


def measured(name: str, inputs: Mapping[str, Any], **params: Any) -> tuple[Any, float, float]:
    """Return a metric's value, the seconds for it, and those to finish its rows again with other weights."""
    metric = METRICS[name]
    full = {**metric.defaults, "like": None, **params}
    start = time.perf_counter()
    rows = table(metric.rows_of(inputs, full))
    run = metric.finish(rows, full)
    value = run(np.ones(len(rows)))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    run(np.ones(len(rows)))
    return value, seconds, time.perf_counter() - start


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the seconds for it."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def row(name: str, ours: float, again: float, peers: float, difference: float) -> None:
    """Print a row of the table."""
    print(f"{name:50} {ours:8.3f} {again:8.3f} {peers:8.3f}  {difference:.1e}")


def _detection(predictions: Sequence[Objects], targets: Sequence[Objects]) -> None:
    """Compare boxes with pycocotools, from Python's lists to COCO's twelve numbers."""
    found = sum(len(image["labels"]) for image in predictions)
    value, ours, again = measured("mean_average_precision", {"predictions": predictions, "targets": targets})
    theirs, seconds = timed(lambda: evaluated(predictions, targets))
    difference = max(abs(value[name] - theirs[place]) for place, name in enumerate(NUMBERS))
    row(f"mean_average_precision, {found} boxes: pycocotools", ours, again, seconds, difference)


def _classes(name: str, predictions: Any, targets: Any) -> None:
    """Compare a metric of classes with both libraries."""
    given = {"predictions": torch.tensor(predictions), "targets": torch.tensor(targets)}
    value, ours, again = measured(name, given, task="multiclass", num_classes=LABELS)
    theirs, seconds = timed(lambda: scikit.f1_score(targets, predictions, average="macro"))
    row(f"{name}, {SAMPLES} classes: scikit-learn", ours, again, seconds, abs(value["macro"] - float(theirs)))
    theirs, seconds = timed(
        lambda: peer.multiclass_f1_score(given["predictions"], given["targets"], num_classes=LABELS)
    )
    row(f"{name}, {SAMPLES} classes: torchmetrics", ours, again, seconds, abs(value["macro"] - theirs.item()))


def _scores(name: str, predictions: Any, targets: Any) -> None:
    """Compare a metric of scores with both libraries."""
    given = {"predictions": torch.tensor(predictions), "targets": torch.tensor(targets)}
    value, ours, again = measured(name, given, task="binary")
    theirs, seconds = timed(lambda: scikit.roc_auc_score(targets, predictions))
    row(f"{name}, {SAMPLES} scores: scikit-learn", ours, again, seconds, abs(value - float(theirs)))
    theirs, seconds = timed(lambda: peer.binary_auroc(given["predictions"], given["targets"]))
    row(f"{name}, {SAMPLES} scores: torchmetrics", ours, again, seconds, abs(value - theirs.item()))


def scenes(count: int, classes: int) -> tuple[list[Objects], list[Objects]]:
    """Return images with about seven objects and seven detections each, as in COCO's validation set."""
    rng = np.random.default_rng(0)
    predictions: list[Objects] = []
    targets: list[Objects] = []
    for _ in range(count):
        sides = np.exp(rng.uniform(2, 5.7, (rng.poisson(7.2), 2)))
        corners = rng.uniform(0, 1, sides.shape) * (640, 480)
        boxes = np.concatenate([corners, corners + sides], 1)
        labels = rng.integers(0, classes, len(boxes))
        near = np.repeat(np.arange(len(boxes)), rng.integers(0, 3, len(boxes)))
        moved = boxes[near] + rng.normal(0, 0.08, (len(near), 4)) * np.tile(sides[near], 2)
        found = np.concatenate(
            [np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1
        )
        guessed = np.where(rng.random(len(near)) < 0.9, labels[near], rng.integers(0, classes, len(near)))
        scores = rng.random(len(near)).round(3)
        predictions.append({"boxes": found.tolist(), "scores": scores.tolist(), "labels": guessed.tolist()})
        targets.append({"boxes": boxes.tolist(), "labels": labels.tolist()})
    return predictions, targets


def evaluated(predictions: Sequence[Objects], targets: Sequence[Objects]) -> Sequence[float]:
    """Return the twelve numbers of pycocotools."""
    coco: Any = COCO()
    true = [{**one, "id": place + 1, "iscrowd": 0} for place, one in enumerate(annotations(targets))]
    coco.dataset = {
        "images": [{"id": image} for image in range(len(targets))],
        "annotations": true,
        "categories": [{"id": label} for label in range(CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(annotations(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return cast(Sequence[float], evaluation.stats)


def annotations(images: Sequence[Objects]) -> list[dict[str, Any]]:
    """Return objects as COCO writes them."""
    found: list[dict[str, Any]] = []
    for image, objects in enumerate(images):
        for place, (x1, y1, x2, y2) in enumerate(objects["boxes"]):
            width, height = x2 - x1, y2 - y1
            one = {
                "image_id": image,
                "category_id": objects["labels"][place],
                "bbox": [x1, y1, width, height],
            }
            score = {"score": objects["scores"][place]} if "scores" in objects else {"area": width * height}
            found.append({**one, **score})
    return found


if __name__ == "__main__":
    main()
