"""Areas under curves, curves and operating points: exact with ties, and equal to scikit-learn's and torchmetrics'."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification
from numpy.random import default_rng

from service.catalogue.table import Array
from tests.metrics.helpers import assert_rows_depend_on_their_sample_alone, reason, selected, value_of

tm: Any = torchmetrics.functional.classification
sk: Any = sklearn.metrics
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.UndefinedMetricWarning", "ignore::UserWarning"
)
AREAS: dict[str, Any] = {"auroc": sk.roc_auc_score, "average_precision": sk.average_precision_score}


def tied(count: int = 200, of: int | None = None, seed: int = 0) -> dict[str, Array]:
    """Scores with many ties; the k-th class has mostly the higher k-th score."""
    rng = default_rng(seed)
    if of is None:
        targets = rng.integers(0, 2, count)
        return {"predictions": (targets + rng.integers(0, 5, count)) / 5, "targets": targets}
    targets = rng.integers(0, of, count)
    scores = (rng.integers(0, 9, (count, of)) + 3 * np.eye(of)[targets]) / 11
    return {"predictions": scores, "targets": targets}


def tied_labels(count: int = 200, of: int = 4) -> dict[str, Array]:
    rng = default_rng(1)
    targets = rng.integers(0, 2, (count, of))
    return {"predictions": (targets + rng.integers(0, 5, (count, of))) / 5, "targets": targets}


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_areas_equal_those_of_scikit_learn(name: str, weighted: bool) -> None:
    inputs = tied()
    weights = default_rng(3).random(200) if weighted else None
    expected = AREAS[name](inputs["targets"], inputs["predictions"], sample_weight=weights)
    assert value_of(name, inputs, weights=weights, task="binary") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_averages_over_classes_equal_those_of_scikit_learn(name: str, weighted: bool) -> None:
    inputs = tied(of=5)
    weights = default_rng(3).random(200) if weighted else None
    found = value_of(name, inputs, weights=weights)
    marks = np.eye(5)[inputs["targets"]]
    assert list(found) == ["macro", "weighted", "per_class"]
    for average, value in found.items():
        how: Any = None if average == "per_class" else average
        expected = AREAS[name](marks, inputs["predictions"], average=how, sample_weight=weights)
        assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_averages_over_labels_equal_those_of_scikit_learn(name: str, weighted: bool) -> None:
    inputs = tied_labels()
    weights = default_rng(3).random(200) if weighted else None
    found = value_of(name, inputs, weights=weights)
    for average, value in found.items():
        how: Any = None if average == "per_class" else average
        expected = AREAS[name](inputs["targets"], inputs["predictions"], average=how, sample_weight=weights)
        assert value == pytest.approx(expected, rel=1e-12)
    assert sorted(found) == ["macro", "micro", "per_class", "weighted"]


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    inputs = tied(60)
    positives, negatives = (inputs["predictions"][inputs["targets"] == k] for k in (1, 0))
    pairs = positives[:, None] - negatives
    assert value_of("auroc", inputs, task="binary") == ((pairs > 0) + 0.5 * (pairs == 0)).mean()


@pytest.mark.parametrize("max_fpr", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_partial_areas_equal_those_of_scikit_learn(max_fpr: float) -> None:
    for seed in range(3):
        inputs = tied(seed=seed)
        expected = sk.roc_auc_score(inputs["targets"], inputs["predictions"], max_fpr=max_fpr)
        found = value_of("auroc", inputs, task="binary", max_fpr=max_fpr)
        assert found == pytest.approx(expected, rel=1e-12)


def test_softmax_comes_first_if_scores_of_classes_are_logits() -> None:
    logits = default_rng(0).normal(size=(300, 4)) * 3
    inputs = {"predictions": logits, "targets": default_rng(1).integers(0, 4, 300)}
    shares = torch.tensor(logits).softmax(1).numpy()
    marks = np.eye(4)[default_rng(1).integers(0, 4, 300)]
    assert value_of("auroc", inputs)["per_class"] == pytest.approx(
        sk.roc_auc_score(marks, logits, average=None)
    )
    found = value_of("auroc", inputs, from_logits=True)["per_class"]
    assert found == pytest.approx(sk.roc_auc_score(marks, shares, average=None), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_scores_are_ranked_as_they_are_sent(dtype: torch.dtype) -> None:
    scores = torch.tensor([0, 1, 1, 0, 1, 1]).to(dtype)
    inputs = {"predictions": scores, "targets": torch.tensor([0, 1, 0, 0, 1, 1])}
    assert value_of("auroc", inputs, task="binary") == 5 / 6
    assert value_of("pr_curve", inputs)["thresholds"].tolist() == [0.0, 1.0]


def test_infinite_scores_are_ranked_first_and_last() -> None:
    inputs = {"predictions": np.array([np.inf, -np.inf, 0.0, np.inf]), "targets": np.array([1, 0, 1, 0])}
    assert value_of("auroc", inputs, task="binary") == 0.625


@pytest.mark.parametrize("name", AREAS)
def test_a_class_without_positives_is_left_out(name: str) -> None:
    inputs = tied(of=3)
    inputs["targets"] = np.where(inputs["targets"] == 1, 0, inputs["targets"])
    found = value_of(name, inputs)
    assert reason(found["per_class"][1]) == "there are no positives of class 1"
    assert found["macro"] == np.mean([found["per_class"][0], found["per_class"][2]])
    alike = value_of(name, inputs, like="torchmetrics")
    if name == "auroc":
        assert alike["per_class"][1] == 0.0
    else:
        assert value_of(name, inputs, like="sklearn")["per_class"][1] == 0.0
    scores, targets = (torch.tensor(inputs[key]) for key in ("predictions", "targets"))
    peer = tm.multiclass_auroc if name == "auroc" else tm.multiclass_average_precision
    assert alike["macro"] == pytest.approx(float(peer(scores, targets, 3)), rel=1e-6)


@pytest.mark.parametrize(("targets", "lacking"), [([0, 0], "positives"), ([1, 1], "negatives")])
def test_an_area_needs_positives_and_negatives(targets: list[int], lacking: str) -> None:
    inputs = {"predictions": np.array([0.1, 0.2]), "targets": np.array(targets)}
    assert reason(value_of("auroc", inputs, task="binary")) == f"there are no {lacking}"
    assert value_of("auroc", inputs, task="binary", like="torchmetrics") == 0.0
    found = value_of("average_precision", inputs, task="binary")
    if lacking == "negatives":
        assert found == 1.0
    else:
        assert reason(found) == "there are no positives"
        assert value_of("average_precision", inputs, task="binary", like="sklearn") == 0.0


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_curves_equal_those_of_scikit_learn(drop: bool, weighted: bool, seed: int) -> None:
    inputs = tied(25 + 40 * seed, seed=seed)
    count = len(inputs["targets"])
    weights = default_rng(seed).integers(0, 3, count).astype(float) if weighted else None
    given: Any = {"sample_weight": weights, "drop_intermediate": drop}
    fpr, tpr, thresholds = sk.roc_curve(inputs["targets"], inputs["predictions"], **given)
    found = value_of("roc_curve", inputs, weights=weights, drop_intermediate=drop)
    np.testing.assert_allclose(found["fpr"], fpr, rtol=1e-12)
    np.testing.assert_allclose(found["tpr"], tpr, rtol=1e-12)
    np.testing.assert_array_equal(found["thresholds"][1:], thresholds[1:])
    assert found["thresholds"][0] > found["thresholds"][1]
    precision, recall, thresholds = sk.precision_recall_curve(
        inputs["targets"], inputs["predictions"], **given
    )
    found = value_of("pr_curve", inputs, weights=weights, drop_intermediate=drop)
    np.testing.assert_allclose(found["precision"], precision, rtol=1e-12)
    np.testing.assert_allclose(found["recall"], recall, rtol=1e-12)
    np.testing.assert_array_equal(found["thresholds"], thresholds)


def test_operating_points_are_the_best_of_all_thresholds() -> None:
    inputs = tied(300, seed=5)
    found = value_of("pr_curve", inputs, beta=2.0, min_precision=0.7, min_recall=0.8, drop_intermediate=True)
    points = []
    for threshold in np.unique(inputs["predictions"]):
        decided = inputs["predictions"] >= threshold
        given = (inputs["targets"], decided)
        points.append((sk.fbeta_score(*given, beta=2.0), sk.precision_score(*given), sk.recall_score(*given)))
    assert found["best_f"]["f"] == pytest.approx(max(f for f, _, _ in points), rel=1e-12)
    assert found["recall_at_precision"]["recall"] == pytest.approx(max(r for _, p, r in points if p >= 0.7))
    assert found["precision_at_recall"]["precision"] == pytest.approx(
        max(p for _, p, r in points if r >= 0.8)
    )
    scores, targets = (torch.tensor(inputs[name]) for name in ("predictions", "targets"))
    expected = tm.binary_recall_at_fixed_precision(scores, targets, 0.7)
    point = found["recall_at_precision"]
    assert [point["recall"], point["threshold"]] == pytest.approx([one.item() for one in expected], rel=1e-6)
    none = value_of("pr_curve", {**inputs, "targets": 1 - inputs["targets"]}, min_precision=0.999)
    assert reason(none["recall_at_precision"]["recall"]) == "no threshold has a precision of 0.999"
    assert "precision_at_recall" not in none


def test_errors_are_equal_between_two_points() -> None:
    # one of two positives is missed where no negative is accepted, none where one of two is
    inputs = {"predictions": np.array([0.9, 0.8, 0.7, 0.6]), "targets": np.array([1, 0, 1, 0])}
    assert value_of("roc_curve", inputs)["equal_error_rate"] == {"rate": 0.5, "threshold": 0.8}
    many = tied(500, seed=2)
    rate = value_of("roc_curve", many, drop_intermediate=False)["equal_error_rate"]["rate"]
    fpr, tpr, _ = sk.roc_curve(many["targets"], many["predictions"])
    assert np.interp(rate, fpr, tpr) == pytest.approx(1 - rate, rel=1e-12)
    expected = tm.binary_eer(*(torch.tensor(many[name]) for name in ("predictions", "targets")))
    alike = value_of("roc_curve", many, like="torchmetrics")["equal_error_rate"]["rate"]
    assert alike == pytest.approx(expected.item(), rel=1e-6)
    for perfect in (0.0, 1.0):
        sure = {"predictions": np.array([perfect, 1 - perfect]), "targets": np.array([0, 1])}
        assert value_of("roc_curve", sure)["equal_error_rate"]["rate"] == perfect


def test_a_curve_of_one_kind_has_no_rate_of_the_other() -> None:
    inputs = {"predictions": np.array([0.1, 0.2]), "targets": np.array([0, 0])}
    roc, pr = value_of("roc_curve", inputs), value_of("pr_curve", inputs)
    assert reason(roc["tpr"]) == reason(roc["equal_error_rate"]["rate"]) == "there are no positives"
    assert roc["fpr"].tolist() == [0, 0.5, 1]
    assert reason(pr["recall"]) == reason(pr["best_f"]["f"]) == "there are no positives"
    nothing = selected(inputs, [])
    assert reason(value_of("roc_curve", nothing)["fpr"]) == "there are no negatives"
    assert value_of("pr_curve", nothing)["precision"].tolist() == [1.0]


@pytest.mark.parametrize("name", ["auroc", "average_precision", "roc_curve", "pr_curve"])
def test_rankings_ignore_and_repeat_samples(name: str) -> None:
    inputs = tied(50)
    params: dict[str, Any] = {"task": "binary"} if name in AREAS else {}
    counts = default_rng(0).integers(0, 3, 50)
    expected = value_of(name, selected(inputs, np.repeat(np.arange(50), counts)), **params)
    found = value_of(name, inputs, weights=counts, **params)
    left_out = counts == 0
    ignoring = {**inputs, "targets": np.where(left_out, -7, inputs["targets"])}
    alike = value_of(name, ignoring, weights=counts, ignore_index=-7, **params)
    for other in (found, alike):
        np.testing.assert_equal(other, expected)
    assert_rows_depend_on_their_sample_alone(name, ignoring, ignore_index=-7, **params)


def test_rankings_of_classes_and_labels_ignore_samples() -> None:
    classes, labels = tied(of=3), tied_labels()
    kept = default_rng(0).random(200) < 0.5
    sent = {**classes, "targets": np.where(kept, classes["targets"], 9)}
    expected = value_of("auroc", selected(classes, np.flatnonzero(kept)))
    np.testing.assert_equal(value_of("auroc", sent, ignore_index=9), expected)
    assert_rows_depend_on_their_sample_alone("auroc", sent, ignore_index=9, from_logits=True)
    marks = default_rng(0).random((200, 4)) < 0.5
    sent = {**labels, "targets": np.where(marks, labels["targets"], 9)}
    scores, targets = torch.tensor(sent["predictions"]), torch.tensor(sent["targets"])
    found = value_of("auroc", sent, ignore_index=9)
    for average in ("macro", "micro"):
        expected = tm.multilabel_auroc(scores, targets, 4, average, ignore_index=9)
        assert found[average] == pytest.approx(float(expected), rel=1e-6)
