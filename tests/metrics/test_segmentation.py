"""Segmentation metrics beside their definitions, torchmetrics, and distances by brute force."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torchmetrics.functional.detection import panoptic_quality as reference_panoptic
from torchmetrics.segmentation import DiceScore, MeanIoU

from service.catalogue.metric import Undefined
from service.catalogue.table import Array
from tests.client import Client
from tests.metrics.helpers import assert_rows_depend_on_their_sample_alone, each_of, reason, value_of

IGNORED = 255


def maps(classes: int = 4, *, ignored: bool = False, seed: int = 0) -> dict[str, Array]:
    """Return classes of pixels, predicted and true."""
    rng = np.random.default_rng(seed)
    predictions, targets = rng.integers(0, classes, (2, 5, 9, 11))
    agree = rng.random(targets.shape) < 0.5
    predictions = np.where(agree, targets, predictions)
    if ignored:
        targets = np.where(rng.random(targets.shape) < 0.2, IGNORED, targets)
        predictions = np.where(rng.random(targets.shape) < 0.1, IGNORED, predictions)
    return {"predictions": predictions, "targets": targets}


@pytest.mark.parametrize("ignored", [False, True])
def test_pixels_are_counted_over_all_images(ignored: bool) -> None:
    sent = maps(ignored=ignored)
    params: dict[str, Any] = {"num_classes": 5, "ignore_index": IGNORED if ignored else None}
    counted = sent["targets"] != IGNORED
    predicted, true = (sent[name][counted] for name in ("predictions", "targets"))
    expected = [jaccard_score(true == label, predicted == label) for label in range(4)]
    iou, dice = (value_of(name, sent, **params) for name in ("mean_iou", "dice_score"))
    absent = Undefined("class 4 has neither targets nor predictions")
    assert iou["per_class"] == [*map(pytest.approx, expected), absent]
    assert iou["macro"] == pytest.approx(np.mean(expected))
    doubled = [2 * share / (1 + share) for share in expected]
    assert dice["per_class"] == [*map(pytest.approx, doubled), absent]
    params.pop("num_classes")
    assert value_of("pixel_accuracy", sent, **params) == pytest.approx((predicted == true).mean())


@pytest.mark.parametrize("classes", [3, 2000])
def test_few_and_many_classes_give_the_same(classes: int) -> None:
    sent = maps(3)
    spread = {name: one * (classes // 3) for name, one in sent.items()}
    few, many = value_of("mean_iou", sent), value_of("mean_iou", spread)
    assert few["macro"] == many["macro"]
    assert [*filter(lambda one: not isinstance(one, Undefined), many["per_class"])] == few["per_class"]


def test_scores_are_read_as_their_highest_class() -> None:
    sent = maps()
    scores = np.eye(4)[sent["predictions"]].transpose(0, 3, 1, 2)
    for name in ("mean_iou", "dice_score", "pixel_accuracy"):
        assert value_of(name, {**sent, "predictions": scores}) == value_of(name, sent)


def test_values_of_images_are_those_of_images_alone() -> None:
    sent = maps()
    for name in ("mean_iou", "dice_score"):
        alone = [value_of(name, {k: one[i : i + 1] for k, one in sent.items()})["macro"] for i in range(5)]
        np.testing.assert_allclose(each_of(name, sent), alone)


def test_where_no_pixel_counts_there_is_no_value() -> None:
    sent = {"predictions": np.zeros((2, 3, 3), int), "targets": np.full((2, 3, 3), IGNORED)}
    assert value_of("mean_iou", sent, ignore_index=IGNORED)["macro"] == Undefined("no pixel counts")
    assert value_of("pixel_accuracy", sent, ignore_index=IGNORED) == Undefined("no pixel counts")
    assert np.isnan(each_of("mean_iou", sent, ignore_index=IGNORED)).all()
    assert np.isnan(each_of("pixel_accuracy", sent, ignore_index=IGNORED)).all()


def segments(seed: int) -> dict[str, Array]:
    """Return classes 0 to 3 and void in rectangles with instances, some of which are found a pixel off."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((4, 24, 32, 2), int)
    predictions = np.zeros_like(targets)
    for image in range(4):
        for _ in range(12):
            (y, x), (h, w) = rng.integers(0, 20, 2), rng.integers(3, 14, 2)
            label, instance = rng.integers(0, 5), rng.integers(0, 3)
            targets[image, y : y + h, x : x + w] = label if label < 4 else IGNORED, instance
            if rng.random() < 0.9:
                dy, dx = rng.integers(-1, 2, 2)
                where = slice(max(0, y + dy), y + h + dy), slice(max(0, x + dx), x + w + dx)
                predictions[(image, *where)] = label if label < 4 else 0, instance
    return {"predictions": predictions, "targets": targets}


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_is_that_of_torchmetrics(seed: int) -> None:
    sent = segments(seed)
    ours = value_of("panoptic_quality", sent, things=(0, 3), stuffs=(1, 2))
    tensors = [torch.tensor(one) for one in sent.values()]
    options: Any = {"things": {0, 3}, "stuffs": {1, 2}, "return_sq_and_rq": True, "return_per_class": True}
    theirs = reference_panoptic(tensors[0], tensors[1], **options)
    for label, expected in zip((0, 3, 1, 2), theirs.tolist(), strict=True):
        found = [0.0 if isinstance(one, Undefined) else one for one in ours["per_class"][str(label)].values()]
        assert found == pytest.approx(expected, abs=1e-6)
    assert ours["pq"] == pytest.approx(np.mean([one["pq"] for one in ours["per_class"].values()]))


def test_segments_that_never_match_have_no_segmentation_quality() -> None:
    predictions, targets = np.zeros((2, 1, 4, 4, 2), int)
    predictions[..., :2, 0] = 1
    value = value_of(
        "panoptic_quality", {"predictions": predictions, "targets": targets}, things=(1, 2), stuffs=(0,)
    )
    assert value["per_class"]["1"] == {"pq": 0, "sq": Undefined("class 1 has no matched segments"), "rq": 0}
    assert value["per_class"]["2"]["pq"] == Undefined("class 2 has neither targets nor predictions")


def shapes(seed: int = 0) -> dict[str, Array]:
    """Return masks of ellipses, predicted ones a little off."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:30, :40]
    found: list[Any] = []
    for _ in range(4):
        centre, radii = rng.uniform([8, 8], [22, 32]), rng.uniform(4, 14, 2)
        for moved in (centre + rng.normal(0, 1.5, 2), centre):
            found.append(((y - moved[0]) / radii[0]) ** 2 + ((x - moved[1]) / radii[1]) ** 2 <= 1)
    masks = np.stack(found)
    return {"predictions": masks[::2].astype(int), "targets": masks[1::2].astype(int)}


def contour(mask: Array) -> Array:
    """Return the pixels of a mask with a neighbour outside, or at the edge of the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)


def distances(sent: dict[str, Array], image: int, spacing: tuple[float, float]) -> list[Array]:
    """Return the distance of each pixel of both contours from the nearest one of the other."""
    first, second = (
        contour(sent[name][image] > 0) * np.array(spacing) for name in ("predictions", "targets")
    )
    pairs = np.sqrt(((first[:, None] - second) ** 2).sum(-1))
    return [pairs.min(1), pairs.min(0)]


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.7)])
def test_contours_are_as_far_apart_as_their_pixels(spacing: tuple[float, float]) -> None:
    sent = shapes()
    apart = [distances(sent, image, spacing) for image in range(4)]
    expected = np.mean([max(np.percentile(side, 95) for side in image) for image in apart])
    assert value_of("hausdorff95", sent, spacing=spacing) == pytest.approx(expected, rel=1e-12)
    for tolerance in (0.0, 1.0, 2.0):
        near = [np.concatenate(image) <= tolerance for image in apart]
        found = value_of("surface_dice", sent, spacing=spacing, tolerance=tolerance)
        assert found == pytest.approx(np.mean([one.mean() for one in near]), rel=1e-12)


@pytest.mark.parametrize("dilation", [None, 1, 3])
def test_rims_are_what_erosion_by_squares_takes_away(dilation: int | None) -> None:
    sent = shapes(1)
    width = round(0.02 * 50) if dilation is None else dilation

    def rim(mask: Array) -> Array:
        kept = np.pad(mask > 0, width)
        rows, columns = mask.shape
        shifts = [
            kept[i : i + rows, j : j + columns] for i in range(2 * width + 1) for j in range(2 * width + 1)
        ]
        return (mask > 0) & ~np.logical_and.reduce(shifts)

    rims = [(rim(p), rim(t)) for p, t in zip(*sent.values(), strict=True)]
    expected = np.mean([(p & t).sum() / (p | t).sum() for p, t in rims])
    assert value_of("boundary_iou", sent, dilation=dilation) == pytest.approx(expected, rel=1e-12)


def test_a_mask_that_only_one_side_has_is_infinitely_far() -> None:
    sent = shapes()
    sent["predictions"][1] = 0
    assert isinstance(value_of("hausdorff95", sent), Undefined)
    assert value_of("surface_dice", sent) == pytest.approx(np.nansum(each_of("surface_dice", sent)) / 4)
    assert value_of("hausdorff95", sent, weights=[1, 0, 1, 1]) > 0
    sent["targets"][1] = 0
    assert value_of("hausdorff95", sent) == pytest.approx(np.nanmean(each_of("hausdorff95", sent)))
    nothing = {name: one * 0 for name, one in sent.items()}
    for name in ("hausdorff95", "surface_dice", "boundary_iou"):
        assert value_of(name, nothing) == Undefined("no image has a mask")


def test_classes_have_a_value_each() -> None:
    sent = shapes()
    for name in ("hausdorff95", "surface_dice", "boundary_iou"):
        by_class = value_of(name, sent, num_classes=3)
        assert by_class["per_class"][1] == value_of(name, sent)
        assert by_class["per_class"][2] == Undefined("no image has class 2")
        assert by_class["macro"] == pytest.approx(np.mean(by_class["per_class"][:2]))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mean_iou", {"ignore_index": 2}),
        ("dice_score", {}),
        ("pixel_accuracy", {}),
        ("boundary_iou", {"num_classes": 4}),
        ("hausdorff95", {"num_classes": 4}),
        ("surface_dice", {"num_classes": 4}),
    ],
)
def test_rows_depend_on_their_map_alone(name: str, params: Any) -> None:
    assert_rows_depend_on_their_sample_alone(name, maps(), **params)


def test_rows_depend_on_their_segments_alone() -> None:
    assert_rows_depend_on_their_sample_alone("panoptic_quality", segments(0), things=(0, 3), stuffs=(1, 2))


@pytest.mark.parametrize(
    ("name", "inputs", "params", "pointer"),
    [
        ("mean_iou", [[[[0, 5]]], [[[0, 1]]]], {"num_classes": 3}, "/inputs/predictions/0/0/1"),
        ("mean_iou", [[[[[0.1]], [[0.5]]]], [[[2]]]], {}, "/inputs/targets/0/0/0"),
        ("mean_iou", [[[[[0.1]], [[0.5]]]], [[[1]]]], {"num_classes": 3}, "/params/num_classes"),
        ("mean_iou", [[[[0, 1]]], [[[0]]]], {}, "/inputs/targets"),
        ("hausdorff95", [[[[2]]], [[[1]]]], {}, "/inputs/predictions/0/0/0"),
        ("hausdorff95", [[[[1]]], [[[1]]]], {"spacing": [1, 0]}, "/params/spacing/1"),
        ("hausdorff95", [[[[1]]], [[[1]]]], {"spacing": [1, 1, 1]}, "/params/spacing"),
        ("surface_dice", [[[[1]]], [[[1]]]], {"tolerance": -1}, "/params/tolerance"),
        ("boundary_iou", [[[[1]]], [[[1]]]], {"dilation": 0}, "/params/dilation"),
        ("panoptic_quality", [[[[[1, 0]]]], [[[[1, 0]]]]], {"things": [1], "stuffs": [1]}, "/params/stuffs"),
        ("panoptic_quality", [[[[[1, 0]]]], [[[[1, 0]]]]], {"things": [1]}, "/params/stuffs"),
        ("panoptic_quality", [[[[1, 0]]], [[[1, 0]]]], {"things": [1], "stuffs": []}, "/inputs/predictions"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is(
    name: str, inputs: list[Any], params: Any, pointer: str, client: Client
) -> None:
    body = {"inputs": dict(zip(("predictions", "targets"), inputs, strict=True)), "params": params}
    answer = client.post(f"/v1/metrics/{name}", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_like_torchmetrics_are_those_of_its_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # each image lacks some of the classes
    shown = rng.integers(0, 5, (6, 1, 1, 2))
    predictions, targets = (
        np.take_along_axis(shown, rng.integers(0, 2, (6, 4, 4, 1)), 3)[..., 0] for _ in "pt"
    )
    tensors = torch.tensor(predictions), torch.tensor(targets)
    inputs = {"predictions": predictions, "targets": targets}
    weights = [1, 2, 0, 1, 1, 3]
    again = np.repeat(np.arange(6), weights)
    peers: Any = (("mean_iou", MeanIoU, {}), ("dice_score", DiceScore, {"average": "macro"}))
    for name, peer, options in peers:
        for chosen, drawn in ((np.arange(6), None), (again, weights)):
            one = peer(num_classes=6, input_format="index", **options)
            one.update(*(tensor[chosen] for tensor in tensors))
            found = value_of(name, inputs, num_classes=6, like="torchmetrics", weights=drawn)
            assert found["macro"] == pytest.approx(one.compute().item(), rel=1e-6)
            each: Any = {"per_class": True} if name == "mean_iou" else {"average": "none"}
            one = peer(num_classes=6, input_format="index", **each)
            one.update(*(tensor[chosen] for tensor in tensors))
            for place, (value, expected) in enumerate(
                zip(found["per_class"], one.compute().tolist(), strict=True)
            ):
                if expected == -1 or np.isnan(expected):
                    assert reason(value) == f"class {place} has neither targets nor predictions"
                else:
                    assert value == pytest.approx(expected, rel=1e-6)
