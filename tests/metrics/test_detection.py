"""Mean average precision beside pycocotools, and beside Pascal VOC's rules written out."""

import json
import time
from typing import Any

import numpy as np
import pytest

from service.catalogue.metric import Undefined
from service.catalogue.table import table
from service.metrics import METRICS
from service.metrics.detection.masks import decoded_counts, runs_of
from tests.client import Client
from tests.metrics.coco import (
    HEIGHT,
    NUMBERS,
    POSE_NUMBERS,
    WIDTH,
    Kind,
    Objects,
    encoded,
    evaluated,
    images,
    pixels,
)
from tests.metrics.helpers import assert_rows_depend_on_their_sample_alone, value_of

IOU_TYPE = {"boxes": "bbox", "runs": "segm", "polygons": "segm", "keypoints": "keypoints"}
KINDS = pytest.mark.parametrize("kind", IOU_TYPE)


def score(predictions: list[Objects], targets: list[Objects], **params: Any) -> Any:
    return value_of("mean_average_precision", {"predictions": predictions, "targets": targets}, **params)


def numbers(value: Any, names: tuple[str, ...]) -> list[float]:
    """Return numbers as pycocotools has them, -1 where undefined."""
    return [-1.0 if isinstance(value[name], Undefined) else value[name] for name in names]


@KINDS
@pytest.mark.parametrize(("count", "classes", "objects"), [(1, 1, 3), (12, 3, 4), (60, 5, 9)])
def test_its_numbers_are_those_of_pycocotools(kind: Kind, count: int, classes: int, objects: int) -> None:
    predictions, targets = images(
        kind, count, classes=1 if kind == "keypoints" else classes, objects=objects, seed=count
    )
    ours = score(predictions, targets, iou_type=IOU_TYPE[kind])
    names = POSE_NUMBERS if kind == "keypoints" else NUMBERS
    theirs = evaluated(predictions, targets, kind)
    np.testing.assert_allclose(numbers(ours, names), theirs.stats, rtol=0, atol=1e-12)
    for place, label in enumerate(theirs.params.catIds):
        precision = theirs.eval["precision"][:, :, place, 0, -1]
        expected = precision[precision > -1].mean() if (precision > -1).any() else -1.0
        assert numbers(ours["per_class"][str(label)], ("map",)) == pytest.approx([expected], abs=1e-12)


def test_only_the_surest_hundred_detections_of_a_class_count() -> None:
    predictions, targets = images("boxes", 4, classes=1, objects=120)
    assert max(len(image["labels"]) for image in predictions) > 100
    theirs = evaluated(predictions, targets, "boxes").stats
    np.testing.assert_allclose(numbers(score(predictions, targets), NUMBERS), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
def test_box_formats_describe_the_same_boxes(box_format: str) -> None:
    predictions, targets = images("boxes", 20)
    expected = score(predictions, targets)

    def rewritten(sent: list[Objects]) -> list[Objects]:
        found: list[Objects] = []
        for image in sent:
            x1, y1, x2, y2 = np.array(image["boxes"]).reshape(-1, 4).round().T
            first = (x1, y1) if box_format == "xywh" else ((x1 + x2) / 2, (y1 + y2) / 2)
            found.append({**image, "boxes": np.stack([*first, x2 - x1, y2 - y1], 1).tolist()})
        return found

    def rounded(sent: list[Objects]) -> list[Objects]:
        return [
            {**image, "boxes": np.array(image["boxes"]).reshape(-1, 4).round().tolist()} for image in sent
        ]

    assert expected["map"] > 0
    assert score(rewritten(predictions), rewritten(targets), box_format=box_format) == score(
        rounded(predictions), rounded(targets)
    )


@KINDS
def test_rows_depend_on_their_image_alone(kind: Kind) -> None:
    predictions, targets = images(kind, 9)
    inputs = {"predictions": predictions, "targets": targets}
    assert_rows_depend_on_their_sample_alone("mean_average_precision", inputs, iou_type=IOU_TYPE[kind])


def test_a_weight_of_two_counts_an_image_twice() -> None:
    predictions, targets = images("boxes", 15, seed=3)
    # without ties, among which the detections of one image stay together
    rng = np.random.default_rng(0)
    predictions = [{**image, "scores": rng.random(len(image["scores"])).tolist()} for image in predictions]
    weights = np.arange(15) % 3
    inputs = {"predictions": predictions, "targets": targets}
    weighed = value_of("mean_average_precision", inputs, weights=weights)
    places = np.repeat(np.arange(15), weights)
    repeated = score([predictions[i] for i in places], [targets[i] for i in places])
    np.testing.assert_allclose(numbers(weighed, NUMBERS), numbers(repeated, NUMBERS), atol=1e-12)
    tenths = value_of("mean_average_precision", inputs, weights=weights * 0.1)
    np.testing.assert_allclose(numbers(tenths, NUMBERS), numbers(repeated, NUMBERS), atol=1e-9)


def test_what_has_no_targets_is_undefined() -> None:
    box = [10.0, 10.0, 50.0, 60.0]
    found = {"boxes": [box], "scores": [0.5], "labels": [7]}
    nothing = score([found], [{"labels": []}])
    assert nothing["map"] == Undefined("there are no targets")
    assert nothing["per_class"]["7"]["map"] == Undefined("class 7 has no targets")
    missed = score([{"scores": [], "labels": []}], [{"boxes": [box], "labels": [7]}])
    assert missed["map"] == 0 and missed["mar_100"] == 0
    assert missed["map_small"] == Undefined("there are no small targets")
    assert score([], [])["map"] == Undefined("there are no targets")
    crowd = score([found], [{"boxes": [box], "labels": [7], "iscrowd": [True]}])
    assert crowd["map"] == Undefined("there are no targets")


def reference_voc(predictions: list[Objects], targets: list[Objects], *, eleven: bool) -> dict[int, float]:
    """Return the average precision of each class as VOC's development kit computes it, with inclusive pixels."""
    found: dict[int, float] = {}
    for label in sorted({label for image in targets for label in image["labels"]}):
        truths = [
            [
                (box, hard)
                for box, mark, hard in zip(image["boxes"], image["labels"], image["iscrowd"], strict=True)
                if mark == label
            ]
            for image in targets
        ]
        positives = sum(not hard for image in truths for _, hard in image)
        sure = [
            (s, n, box)
            for n, image in enumerate(predictions)
            for box, s, mark in zip(image["boxes"], image["scores"], image["labels"], strict=True)
            if mark == label
        ]
        taken: set[tuple[int, int]] = set()
        marks: list[bool] = []
        for _, n, box in sorted(sure, key=lambda one: -one[0]):
            overlaps = [inclusive_iou(box, other) for other, _ in truths[n]]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best < 0 or overlaps[best] < 0.5:
                marks.append(False)
            elif not truths[n][best][1]:
                marks.append((n, best) not in taken)
                taken.add((n, best))
        right, wrong = np.cumsum(marks), np.cumsum(~np.array(marks, bool))
        recall, precision = right / max(positives, 1), right / np.maximum(right + wrong, 1)
        if eleven:
            at = [precision[recall >= level].max(initial=0) for level in np.arange(0.0, 1.1, 0.1)]
            average = float(np.mean(at))
        else:
            steps = np.diff(np.concatenate([[0], recall]))
            average = float(sum(step * precision[place:].max() for place, step in enumerate(steps)))
        if positives:
            found[label] = average
    return found


def inclusive_iou(box: list[float], other: list[float]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(one[2] - one[0] + 1) * (one[3] - one[1] + 1) for one in (box, other)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("like", ["voc2007", "voc2012"])
@pytest.mark.parametrize("seed", range(4))
def test_voc_has_its_own_rules(like: str, seed: int) -> None:
    predictions, targets = images("boxes", 25, classes=3, objects=6, seed=seed)
    ours = score(predictions, targets, like=like)
    theirs = reference_voc(predictions, targets, eleven=like == "voc2007")
    assert ours["map"] == pytest.approx(np.mean([*theirs.values()]), abs=1e-12)
    for label, average in theirs.items():
        assert ours["per_class"][str(label)]["map_50"] == pytest.approx(average, abs=1e-12)


def test_masks_are_decoded_and_drawn_as_pycocotools_does() -> None:
    predictions, _ = images("polygons", 30, objects=8, seed=5)
    coded, _ = images("runs", 30, objects=8, seed=5)
    size = [HEIGHT, WIDTH]
    drawn, decoded = (runs_of(sent, [size] * len(sent)) for sent in (predictions, coded))
    masks = [encoded(mask) for image in predictions for mask in image["masks"]]
    expected = np.concatenate([pixels(mask) for mask in masks])
    for runs in (drawn, decoded):
        steps = np.zeros(len(expected) + 1, np.int64)
        np.add.at(steps, runs.starts, 1)
        np.add.at(steps, runs.ends, -1)
        assert (np.cumsum(steps[:-1]) == expected).all()
        assert runs.areas().tolist() == [int(pixels(mask).sum()) for mask in masks]


def test_broken_run_lengths_are_found() -> None:
    assert decoded_counts(["52203", "o"])[1] == 1
    assert decoded_counts(["\x01", "52203"])[1] == 0
    assert decoded_counts(["oooooooooooo0"])[1] == 0
    assert decoded_counts(["", "1"])[0].lengths.tolist() == [0, 1]


def send(client: Client, predictions: list[Any], targets: list[Any], **params: Any) -> Any:
    body = {"inputs": {"predictions": predictions, "targets": targets}, "params": params}
    return client.post("/v1/metrics/mean_average_precision", json=body)


BOX = {"boxes": [[1, 2, 30, 40], [5, 5, 9, 9]], "scores": [0.5, 1], "labels": [3, 4]}
FULL = {"size": [4, 5], "counts": [0, 20]}


@pytest.mark.parametrize(
    ("change", "params", "place"),
    [
        ({"boxes": [[1, 2, 30, 40], [5, 5, 1, 9]]}, {}, "boxes/1"),
        ({"boxes": [[1, 2, 30, 40], [5, 5, -1, 9]]}, {"box_format": "xywh"}, "boxes/1"),
        ({"boxes": [[1, 2, 30, 40], [5, 5, 9]]}, {}, "boxes/1"),
        ({"boxes": [[1, 2, 30, 40], [5, "5", 9, 9]]}, {}, "boxes/1/1"),
        ({"boxes": [[1, 2, 30, 40], [5, 1e12, 9, 1e13]]}, {}, "boxes/1/1"),
        ({"scores": [0.5]}, {}, "scores"),
        ({"labels": [3, 4.5]}, {}, "labels/1"),
        ({"labels": [3, True]}, {}, "labels/1"),
        ({"colours": []}, {}, "colours"),
        ({}, {"iou_type": "segm"}, ""),
        ({"masks": [FULL, {"size": [4, 5], "counts": [0, 19]}]}, {"iou_type": "segm"}, "masks/1/counts"),
        ({"masks": [FULL, {"size": [4, 5], "counts": "é"}]}, {"iou_type": "segm"}, "masks/1/counts"),
        ({"masks": [FULL, {"size": [4, 5], "counts": "ooo"}]}, {"iou_type": "segm"}, "masks/1/counts"),
        ({"masks": [FULL, {"size": [5, 5], "counts": [25]}]}, {"iou_type": "segm"}, "masks/1/size"),
        ({"masks": [FULL, [[1, 1, 3, 1, 2, 2, 2]]]}, {"iou_type": "segm"}, "masks/1/0"),
        ({"masks": [FULL, [[1, 1, 3, 1, 2, 1e9]]]}, {"iou_type": "segm"}, "masks/1/0/5"),
        ({"keypoints": [[[1, 2, 3]] * 17, [[1, 2, 3]] * 16]}, {"iou_type": "keypoints"}, "keypoints/1"),
    ],
)
def test_wrong_objects_are_refused_where_they_are(
    change: Any, params: Any, place: str, client: Client
) -> None:
    first = {"scores": [], "labels": []}
    other = {"masks": [FULL], "labels": [3]} if "masks" in change else {"labels": []}
    answer = send(client, [first, {**BOX, **change}], [{"labels": []}, other], **params)
    assert answer.status_code == 422, answer.text
    pointers = [fault["pointer"] for fault in answer.json()["errors"]]
    assert f"/inputs/predictions/1/{place}".rstrip("/") in pointers


def test_a_mask_of_a_billion_pixels_takes_no_memory(client: Client) -> None:
    side = 31_623
    mask = {"size": [side, side], "counts": [5, side * side - 5]}
    answer = send(
        client,
        [{"masks": [mask], "scores": [1], "labels": [0]}],
        [{"masks": [mask], "labels": [0]}],
        iou_type="segm",
    )
    assert answer.json()["value"]["map_large"] == 1.0


def test_comparisons_that_take_too_long_are_refused(client: Client) -> None:
    boxes = {"boxes": [[0, 0, 9, 9]] * 6_000, "labels": [0] * 6_000}
    inputs = {"predictions": [{**boxes, "scores": [1] * 6_000}], "targets": [boxes]}
    voc = client.post("/v1/metrics/mean_average_precision", json={"inputs": inputs, "like": "voc2012"})
    assert voc.status_code == 413
    far = {"masks": [[[0, 0, 65_000, 0, 65_000, 65_000]]] * 50, "labels": [0] * 50}
    assert send(client, [{**far, "scores": [1] * 50}], [far], iou_type="segm").status_code == 413


def test_polygons_need_no_size(client: Client) -> None:
    polygons = [[[1, 1, 30, 2, 25, 40]], [[50, 60, 90, 60, 90, 99, 50, 99]]]
    found, true = (
        {"masks": polygons, "scores": [1, 0.5], "labels": [0, 0]},
        {"masks": polygons, "labels": [0, 0]},
    )
    value = send(client, [found], [true], iou_type="segm").json()["value"]
    assert value["map"] == 1.0
    assert value == send(client, [found], [{**true, "size": [200, 100]}], iou_type="segm").json()["value"]


def test_thousands_of_images_are_finished_again_and_again_in_little_time() -> None:
    predictions, targets = images("boxes", 1000, classes=20, objects=5)
    metric = METRICS["mean_average_precision"]
    params = {**metric.defaults, "like": None}
    start = time.perf_counter()
    rows = table(metric.rows_of({"predictions": predictions, "targets": targets}, params))
    run = metric.finish(rows, params)
    run(np.ones(1000))
    assert time.perf_counter() - start < 2
    # 32 bytes a detection, 9 a true object
    found = sum(len(image["labels"]) for image in predictions)
    kept = sum(rows.ragged(name).values.nbytes for name in ("scores", "labels", "hits", "misses"))
    assert kept == 32 * found
    assert len(json.dumps(run(np.ones(1000))["per_class"], default=str)) > 1000
