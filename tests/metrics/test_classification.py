"""Decisions and probabilities of classes: values equal scikit-learn's and torchmetrics', and what is undefined says why."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification
from numpy.random import Generator, default_rng

from service.catalogue.metric import Undefined
from service.catalogue.table import Array
from service.metrics import METRICS
from tests.client import Client
from tests.metrics.helpers import (
    assert_rows_depend_on_their_sample_alone,
    each_of,
    reason,
    rows_of,
    selected,
    value_of,
)

tm: Any = torchmetrics.functional.classification
sk: Any = sklearn.metrics
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.UndefinedMetricWarning", "ignore::UserWarning"
)
Case = tuple[dict[str, Array], dict[str, Any]]
DECISIONS = [
    "accuracy",
    "balanced_accuracy",
    "cohen_kappa",
    "confusion_matrix",
    "exact_match",
    "f1",
    "hamming",
    "jaccard",
    "matthews_corrcoef",
    "precision",
    "recall",
    "specificity",
]
PROBABILITIES = ["log_loss", "brier", "calibration_error"]
AVERAGED = {
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "f1": sk.f1_score,
    "jaccard": sk.jaccard_score,
}


def binary(rng: Generator, count: int = 60) -> Case:
    """Scores of which some equal the threshold, and marks."""
    scores = rng.integers(0, 11, count) / 10
    return {"predictions": scores, "targets": rng.integers(0, 2, count)}, {"task": "binary"}


def classes(rng: Generator, count: int = 60, of: int = 4) -> Case:
    """Predicted classes."""
    targets = rng.integers(0, of, count)
    predictions = np.where(rng.random(count) < 0.5, targets, rng.integers(0, of, count))
    return {"predictions": predictions, "targets": targets}, {"task": "multiclass", "num_classes": of}


def scores(rng: Generator, count: int = 60, of: int = 4) -> Case:
    """Probabilities of classes."""
    logits = rng.normal(size=(count, of))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {"predictions": shares, "targets": rng.integers(0, of, count)}, {"task": "multiclass"}


def labels(rng: Generator, count: int = 60, of: int = 5) -> Case:
    """Probabilities of labels."""
    return {"predictions": rng.random((count, of)), "targets": rng.integers(0, 2, (count, of))}, {}


def decided(case: Case) -> tuple[Array, Array]:
    """Return targets and decisions."""
    predictions, targets = case[0]["predictions"], case[0]["targets"]
    if targets.ndim == 2 or case[1].get("task") == "binary":
        return targets, (predictions > 0.5).astype(int)
    return targets, predictions.argmax(1) if predictions.ndim == 2 else predictions


CASES = {"binary": binary, "classes": classes, "scores": scores, "labels": labels}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param](default_rng(hash(request.param) % 7))


@pytest.mark.parametrize("name", DECISIONS)
def test_rows_depend_on_their_sample_alone(name: str, case: Case) -> None:
    assert_rows_depend_on_their_sample_alone(name, case[0], **case[1])


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("make", [binary, scores, labels])
@pytest.mark.parametrize("from_logits", [False, True])
def test_scores_of_probabilities_depend_on_their_sample_alone(
    name: str, make: Any, from_logits: bool
) -> None:
    inputs, params = make(default_rng(0))
    assert_rows_depend_on_their_sample_alone(name, inputs, **params, from_logits=from_logits)
    many = make(default_rng(2), 333)
    assert_rows_depend_on_their_sample_alone(name, many[0], **many[1], from_logits=from_logits)
    wide = scores(default_rng(1), 5, 1037)
    assert_rows_depend_on_their_sample_alone(name, wide[0], from_logits=from_logits)


@pytest.mark.parametrize("name", DECISIONS)
def test_weights_that_are_counts_equal_repeated_samples(name: str, case: Case) -> None:
    inputs, params = case
    counts = default_rng(3).integers(0, 4, len(inputs["targets"]))
    repeated = selected(inputs, np.repeat(np.arange(len(counts)), counts))
    assert_equal(value_of(name, inputs, weights=counts, **params), value_of(name, repeated, **params))


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "matthews_corrcoef", "cohen_kappa"])
@pytest.mark.parametrize("make", [binary, classes, scores])
@pytest.mark.parametrize("weighted", [False, True])
def test_single_numbers_equal_those_of_scikit_learn(name: str, make: Any, weighted: bool) -> None:
    peers: dict[str, Any] = {
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": sk.balanced_accuracy_score,
        "matthews_corrcoef": sk.matthews_corrcoef,
        "cohen_kappa": sk.cohen_kappa_score,
    }
    rng = default_rng(5)
    case = make(rng)
    weights = rng.random(60) if weighted else None
    expected = peers[name](*decided(case), sample_weight=weights)
    assert value_of(name, case[0], weights=weights, **case[1]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
@pytest.mark.parametrize("of", [2, 5, 300])
def test_weighted_kappa_equals_that_of_scikit_learn(weights: str, of: int) -> None:
    inputs, params = classes(default_rng(0), 400, of)
    expected = sk.cohen_kappa_score(
        inputs["targets"], inputs["predictions"], labels=range(of), weights=weights
    )
    found = _kappa(inputs, params | {"weights": weights})
    assert found == pytest.approx(expected, rel=1e-12)
    alike = sk.cohen_kappa_score(inputs["targets"], inputs["predictions"], weights=weights)
    assert _kappa(inputs, params | {"weights": weights, "like": "sklearn"}) == pytest.approx(alike, rel=1e-12)


def _kappa(inputs: Mapping[str, Any], params: dict[str, Any]) -> Any:
    """Return kappa; its param ``weights`` has the name of the helper's own."""
    metric = METRICS["cohen_kappa"]
    chosen = {"like": None, **metric.defaults, **params}
    rows = rows_of(metric, inputs, chosen)
    return metric.finish(rows, chosen)(np.ones(len(rows)))


@pytest.mark.parametrize("name", AVERAGED)
@pytest.mark.parametrize("weighted", [False, True])
def test_averages_equal_those_of_scikit_learn(name: str, weighted: bool, case: Case) -> None:
    inputs, params = case
    weights = default_rng(2).random(60) if weighted else None
    targets, predictions = decided(case)
    found = value_of(name, inputs, weights=weights, **params)
    if params.get("task") == "binary":
        assert found == pytest.approx(AVERAGED[name](targets, predictions, sample_weight=weights), rel=1e-12)
        return
    assert list(found) == ["macro", "micro", "weighted", "per_class"]
    for average, value in found.items():
        how: Any = None if average == "per_class" else average
        expected = AVERAGED[name](targets, predictions, average=how, sample_weight=weights)
        assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_f_weighs_recall_by_beta(beta: float) -> None:
    case = scores(default_rng(8))
    targets, predictions = decided(case)
    expected = sk.fbeta_score(targets, predictions, beta=beta, average=None)
    assert value_of("f1", case[0], beta=beta)["per_class"] == pytest.approx(expected, rel=1e-12)
    assert METRICS["f1"].signature(dict(METRICS["f1"].defaults)) == "f1|beta:1|undefined:null|v1"


@pytest.mark.parametrize("name", ["precision", "recall", "specificity", "f1", "jaccard"])
@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_averages_like_torchmetrics_equal_its_own(name: str, kind: str) -> None:
    rng = default_rng(4)
    if kind == "multiclass":
        # class 3 has targets only, class 4 predictions only, class 5 neither
        inputs = {"predictions": rng.choice([0, 1, 2, 4], 50), "targets": rng.choice([0, 1, 2, 3], 50)}
        params, count = dict[str, Any](task="multiclass", num_classes=6), {"num_classes": 6}
    else:
        inputs = {"predictions": rng.random((50, 4)), "targets": rng.integers(0, 2, (50, 4))}
        inputs["predictions"][:, 1] = 0
        inputs["targets"][:, 1:3] = 0
        params, count = dict[str, Any](), {"num_labels": 4}
    peer = getattr(tm, f"{kind}_{ {'f1': 'f1_score', 'jaccard': 'jaccard_index'}.get(name, name) }")
    found = value_of(name, inputs, **params, like="torchmetrics")
    for average, value in found.items():
        expected = peer(
            torch.tensor(inputs["predictions"]),
            torch.tensor(inputs["targets"]),
            average="none" if average == "per_class" else average,
            **count,
        )
        assert value == pytest.approx(expected.double().numpy(), rel=1e-6)


@pytest.mark.parametrize("name", AVERAGED)
def test_averages_like_scikit_learn_count_0_for_classes_that_lack_something(name: str) -> None:
    rng = default_rng(4)
    inputs = {"predictions": rng.choice([0, 1, 2, 4], 50), "targets": rng.choice([0, 1, 2, 3], 50)}
    for count in (6, None):
        found = value_of(name, inputs, task="multiclass", num_classes=count, like="sklearn")
        for average in ("macro", "micro", "weighted"):
            expected = AVERAGED[name](
                inputs["targets"], inputs["predictions"], average=average, zero_division=0
            )
            assert found[average] == pytest.approx(expected, rel=1e-12)
    two = {"predictions": np.array([0, 1]), "targets": np.array([0, 1])}
    assert value_of(name, two, task="multiclass", num_classes=3, like="sklearn")["macro"] == 1


def test_a_class_that_lacks_what_is_divided_by_is_left_out_of_averages() -> None:
    inputs = {"predictions": np.array([0, 0, 2]), "targets": np.array([0, 1, 1])}
    params: dict[str, Any] = {"task": "multiclass", "num_classes": 4}
    precision = value_of("precision", inputs, **params)
    assert precision["macro"] == 0.25
    assert precision["per_class"][0] == 0.5
    assert precision["per_class"][2] == 0.0
    assert reason(precision["per_class"][1]) == "class 1 has no predictions"
    f = value_of("f1", inputs, **params)
    assert reason(f["per_class"][3]) == "class 3 has neither targets nor predictions"
    assert f["macro"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    recall = value_of("recall", inputs, **params)
    assert recall["per_class"][:2] == [1.0, 0.0]
    assert reason(recall["per_class"][2]) == "class 2 has no targets"
    assert recall["weighted"] == pytest.approx(1 / 3)
    labels = value_of("precision", {"predictions": np.zeros((3, 2)), "targets": np.ones((3, 2), int)})
    assert reason(labels["macro"]) == reason(labels["micro"]) == "no label has predictions"
    assert reason(labels["per_class"][1]) == "label 1 has no predictions"


def test_fractions_of_weights_leave_no_residue_where_nothing_is() -> None:
    inputs = {"predictions": np.array([0, 0, 1, 1, 0]), "targets": np.zeros(5, int)}
    weights = [0.1, 0.2, 0.3, 0.7, 0.1]
    found = value_of("specificity", inputs, weights=weights, task="multiclass", num_classes=2)
    assert reason(found["per_class"][0]) == "class 0 has no targets of others"
    assert reason(value_of("matthews_corrcoef", inputs, weights=weights, task="multiclass")) == (
        "all targets are of one class"
    )


@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
@pytest.mark.parametrize("weighted", [False, True])
def test_confusion_matrices_equal_those_of_scikit_learn(normalize: Any, weighted: bool, case: Case) -> None:
    targets, predictions = decided(case)
    weights = default_rng(2).random(60) if weighted else None
    found = value_of("confusion_matrix", case[0], weights=weights, normalize=normalize, **case[1])
    if targets.ndim == 1:
        expected = sk.confusion_matrix(targets, predictions, normalize=normalize, sample_weight=weights)
    else:
        expected = sk.multilabel_confusion_matrix(targets, predictions, sample_weight=weights)
        axes = {None: None, "true": 2, "pred": 1, "all": (1, 2)}[normalize]
        expected = expected if axes is None else expected / expected.sum(axes, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_matrix_has_all_classes_and_says_which_shares_do_not_exist() -> None:
    inputs = {"predictions": np.array([0, 2, 2]), "targets": np.array([0, 0, 2])}
    params: dict[str, Any] = {"task": "multiclass", "num_classes": 4}
    assert value_of("confusion_matrix", inputs, **params).tolist() == [
        [1, 0, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    shares = value_of("confusion_matrix", inputs, **params, normalize="true")
    assert shares[0] == [0.5, 0, 0.5, 0]
    assert all(reason(share) == "the class has no targets" for share in shares[1] + shares[3])
    alike = value_of("confusion_matrix", inputs, **params, normalize="true", like="sklearn")
    np.testing.assert_array_equal(
        alike,
        sk.confusion_matrix(inputs["targets"], inputs["predictions"], labels=range(4), normalize="true"),
    )


def test_accuracy_of_labels_is_their_share_and_exact_match_that_of_whole_rows() -> None:
    case = labels(default_rng(1), 200, 3)
    targets, predictions = decided(case)
    inputs = case[0]
    assert value_of("accuracy", inputs) == (targets == predictions).mean()
    assert value_of("hamming", inputs) == pytest.approx(sk.hamming_loss(targets, predictions), rel=1e-12)
    assert value_of("exact_match", inputs) == sk.accuracy_score(targets, predictions)
    assert value_of("accuracy", inputs, like="sklearn") == sk.accuracy_score(targets, predictions)
    expected = tm.multilabel_exact_match(
        torch.tensor(inputs["predictions"]), torch.tensor(targets), num_labels=3
    )
    assert value_of("exact_match", inputs) == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(each_of("hamming", inputs), (targets != predictions).mean(1))


@pytest.mark.parametrize("name", ["matthews_corrcoef", "balanced_accuracy", "cohen_kappa"])
def test_single_numbers_of_labels_take_all_labels_together(name: str) -> None:
    inputs, _ = labels(default_rng(1))
    flat = {key: value.reshape(-1) for key, value in inputs.items()}
    assert value_of(name, inputs) == value_of(name, flat, task="binary")


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
def test_top_k_accuracy_takes_the_first_of_equal_scores(top_k: int) -> None:
    rng = default_rng(0)
    inputs = {"predictions": rng.integers(0, 3, (200, 5)) / 2, "targets": rng.integers(0, 5, 200)}
    ranked = np.argsort(-inputs["predictions"], axis=1, kind="stable")[:, :top_k]
    expected = (ranked == inputs["targets"][:, None]).any(1).mean()
    assert value_of("accuracy", inputs, top_k=top_k) == expected
    distinct = {"predictions": rng.random((200, 5)), "targets": inputs["targets"]}
    if top_k < 5:
        peer = sk.top_k_accuracy_score(distinct["targets"], distinct["predictions"], k=top_k, labels=range(5))
        assert value_of("accuracy", distinct, top_k=top_k) == pytest.approx(peer, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_score_equal_to_the_threshold_is_negative_in_every_dtype(dtype: torch.dtype) -> None:
    inputs = {"predictions": torch.tensor([0.3, 0.5, 0.2], dtype=dtype), "targets": torch.tensor([0, 1, 0])}
    assert value_of("accuracy", inputs, task="binary", threshold=0.3) == 1.0
    logits = {"predictions": torch.tensor([0.0, 0.1, -0.1], dtype=dtype), "targets": torch.tensor([0, 1, 0])}
    assert value_of("accuracy", logits, task="binary", from_logits=True) == 1.0


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(-0.1, [1, 1, 1, 1]), (0.0, [0, 1, 1, 1]), (0.5, [0, 0, 1, 1]), (1.0, [0, 0, 0, 0])],
)
def test_the_sigmoid_of_logits_is_compared_with_the_threshold(threshold: float, expected: list[int]) -> None:
    inputs = {"predictions": np.array([-np.inf, -1.0, 1.0, np.inf]), "targets": np.array(expected)}
    assert value_of("accuracy", inputs, task="binary", from_logits=True, threshold=threshold) == 1.0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_marks_are_decisions(dtype: torch.dtype) -> None:
    marks = torch.tensor([1, 0, 1, 1])
    inputs = {"predictions": marks.to(dtype), "targets": torch.tensor([1, 0, 0, 1])}
    assert value_of("accuracy", inputs, task="binary") == 0.75
    assert value_of("accuracy", {name: one[:, None] for name, one in inputs.items()}) == 0.75
    two = {
        "predictions": torch.stack([~marks.bool(), marks.bool()], 1).to(dtype),
        "targets": inputs["targets"],
    }
    assert value_of("accuracy", two) == 0.75


@pytest.mark.parametrize("name", [*DECISIONS, *PROBABILITIES])
@pytest.mark.parametrize("ignored", [-1, 1, 255])
def test_ignored_samples_do_not_count(name: str, ignored: int) -> None:
    rng = default_rng(0)
    makers = (binary, scores) if name in PROBABILITIES else (binary, classes, scores)
    for make in makers:
        inputs, params = make(rng)
        targets = inputs["targets"].copy()
        left_out = targets == ignored
        if ignored in (-1, 255):
            left_out = rng.random(60) < 0.3
            targets[left_out] = ignored
        sent = {**inputs, "targets": targets}
        found = value_of(name, sent, **params, ignore_index=ignored)
        assert_equal(found, value_of(name, selected(inputs, np.flatnonzero(~left_out)), **params))
        assert_rows_depend_on_their_sample_alone(name, sent, **params, ignore_index=ignored)


@pytest.mark.parametrize("name", [*DECISIONS, *PROBABILITIES])
def test_ignored_labels_do_not_count(name: str) -> None:
    inputs, _ = labels(default_rng(0), 50, 1)
    left_out = default_rng(1).random((50, 1)) < 0.3
    targets = np.where(left_out, -1, inputs["targets"])
    found = value_of(name, {**inputs, "targets": targets}, ignore_index=-1)
    assert_equal(found, value_of(name, selected(inputs, np.flatnonzero(~left_out[:, 0]))))


def test_a_row_matches_exactly_if_its_labels_that_count_do() -> None:
    inputs = {
        "predictions": np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]]),
        "targets": np.array([[1, 0, -1], [-1, 0, 1], [-1, -1, -1], [1, 1, 1]]),
    }
    assert value_of("exact_match", inputs, ignore_index=-1) == 2 / 3
    assert np.isnan(each_of("exact_match", inputs, ignore_index=-1)).tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("make", [binary, classes, labels])
def test_without_samples_nothing_is_invented(name: str, make: Any) -> None:
    inputs, params = make(default_rng(0))
    for weights, sent in (([], selected(inputs, np.arange(0))), (np.zeros(60), inputs)):
        numbers = [*_numbers(value_of(name, sent, weights=weights, **params))]
        if name == "confusion_matrix":
            assert all(number == 0 for number in numbers)
        else:
            assert all(isinstance(number, Undefined) for number in numbers)


@pytest.mark.parametrize("constant", ["predictions", "targets", "both"])
def test_a_correlation_with_one_class_is_undefined_and_peers_have_0(constant: str) -> None:
    ones, mixed = np.ones(4, int), np.array([0, 1, 1, 0])
    inputs = {
        "predictions": mixed if constant == "targets" else ones,
        "targets": mixed if constant == "predictions" else ones,
    }
    found = value_of("matthews_corrcoef", inputs, task="binary")
    assert reason(found).startswith("all predictions" if constant == "predictions" else "all targets")
    assert value_of("matthews_corrcoef", inputs, task="binary", like="sklearn") == 0.0
    kappa = value_of("cohen_kappa", inputs, task="binary")
    if constant == "both":
        assert reason(kappa) == "targets and predictions are all of one class"
    else:
        assert kappa == 0.0


def test_a_correlation_like_torchmetrics_equals_its_own() -> None:
    for code in range(3**8):
        if code % 7:
            continue
        marks = np.array([code // 2**k % 2 for k in range(8)])
        inputs = {"predictions": marks[:4], "targets": marks[4:]}
        expected = tm.binary_matthews_corrcoef(*(torch.tensor(inputs[name]) for name in inputs))
        found = value_of("matthews_corrcoef", inputs, task="binary", like="torchmetrics")
        assert found == pytest.approx(expected.item(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", ["matthews_corrcoef", "cohen_kappa"])
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e150, 1e290])
def test_the_scale_of_weights_does_not_matter(name: str, scale: float) -> None:
    inputs, params = classes(default_rng(0))
    expected = value_of(name, inputs, **params)
    assert value_of(name, inputs, weights=np.full(60, scale), **params) == pytest.approx(expected, rel=1e-12)


def test_perfect_decisions_have_exactly_1() -> None:
    targets = default_rng(0).integers(0, 7, 1000)
    for name in ("matthews_corrcoef", "cohen_kappa", "balanced_accuracy", "accuracy"):
        assert value_of(name, {"predictions": targets, "targets": targets}, task="multiclass") == 1.0


@pytest.mark.parametrize("make", [binary, scores])
@pytest.mark.parametrize("weighted", [False, True])
def test_log_loss_and_brier_score_equal_those_of_scikit_learn(make: Any, weighted: bool) -> None:
    rng = default_rng(0)
    inputs, params = make(rng)
    if make is binary:
        inputs["predictions"] = inputs["predictions"].clip(0.05, 0.95)
    weights = rng.random(60) if weighted else None
    for name, peer in (("log_loss", sk.log_loss), ("brier", sk.brier_score_loss)):
        expected = peer(inputs["targets"], inputs["predictions"], sample_weight=weights)
        assert value_of(name, inputs, weights=weights, **params) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["log_loss", "brier"])
def test_scores_of_labels_are_means_of_each_label_alone(name: str) -> None:
    inputs, _ = labels(default_rng(0))
    alone = [value_of(name, {key: one[:, k] for key, one in inputs.items()}, task="binary") for k in range(5)]
    assert value_of(name, inputs) == pytest.approx(np.mean(alone), rel=1e-12)


def test_an_impossible_event_makes_log_loss_undefined_unless_clipped() -> None:
    inputs = {"predictions": np.array([[0.0, 1.0], [0.5, 0.5]]), "targets": np.array([0, 1])}
    assert reason(value_of("log_loss", inputs)) == "it is infinite: 1 samples have a target of probability 0"
    assert each_of("log_loss", inputs).tolist() == [np.inf, np.log(2)]
    assert value_of("log_loss", inputs, weights=[0, 1]) == pytest.approx(np.log(2), rel=1e-15)
    expected = sk.log_loss(inputs["targets"], inputs["predictions"])
    assert value_of("log_loss", inputs, like="sklearn") == pytest.approx(expected, rel=1e-12)


def test_log_loss_of_logits_keeps_all_digits() -> None:
    inputs = {"predictions": np.array([[50.0, 0.0, 0.0], [0.0, 900.0, 0.0]]), "targets": np.array([0, 0])}
    rows = each_of("log_loss", inputs, from_logits=True)
    assert rows.tolist() == pytest.approx([2 * np.exp(-50.0), 900.0], rel=1e-14)
    binary = {"predictions": np.array([-40.0, 800.0]), "targets": np.array([0, 0])}
    rows = each_of("log_loss", binary, task="binary", from_logits=True)
    assert rows.tolist() == pytest.approx([np.exp(-40.0), 800.0], rel=1e-14)


def test_infinite_logits_are_certain() -> None:
    inf = np.inf
    inputs = {
        "predictions": np.array([[inf, 0.0], [-inf, 1.0], [-inf, -inf], [inf, inf]]),
        "targets": np.array([0, 1, 0, 1]),
    }
    half = np.log(2)
    assert each_of("log_loss", inputs, from_logits=True).tolist() == pytest.approx([0, 0, half, half])
    assert each_of("brier", inputs, from_logits=True).tolist() == pytest.approx([0, 0, 0.5, 0.5])
    assert value_of("calibration_error", inputs, from_logits=True)["bins"][-1]["count"] == 2


@pytest.mark.parametrize("make", [binary, scores, labels])
@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_calibration_errors_equal_those_of_torchmetrics(make: Any, n_bins: int, norm: Any) -> None:
    inputs, params = make(default_rng(0), 300)
    predictions, targets = (torch.tensor(inputs[name]) for name in ("predictions", "targets"))
    if make is scores:
        expected = tm.multiclass_calibration_error(predictions, targets, 4, n_bins, norm)
    else:
        expected = tm.binary_calibration_error(predictions.reshape(-1), targets.reshape(-1), n_bins, norm)
    found = value_of("calibration_error", inputs, n_bins=n_bins, like="torchmetrics", **params)
    assert found[norm] == pytest.approx(expected.item(), rel=1e-6)


def test_bins_of_calibration_say_what_they_hold() -> None:
    inputs = {"predictions": np.array([0.0, 0.1, 0.5, 1.0]), "targets": np.array([0, 1, 1, 1])}
    found = value_of("calibration_error", inputs, task="binary", n_bins=2, weights=[1, 1, 2, 1])
    first, second = found["bins"]
    assert first == {"lower": 0.0, "upper": 0.5, "count": 2.0, "confidence": 0.05, "accuracy": 0.5}
    assert second == {"lower": 0.5, "upper": 1.0, "count": 3.0, "confidence": 2 / 3, "accuracy": 1.0}
    assert found["l1"] == pytest.approx((0.45 * 2 + 3 / 3) / 5)
    assert found["max"] == pytest.approx(0.45)
    few = value_of("calibration_error", inputs, task="binary", n_bins=10)["bins"][3]
    assert reason(few["accuracy"]) == "no sample has a confidence in this bin"


def test_wilson_intervals_are_of_shares_of_samples() -> None:
    inputs, params = binary(default_rng(0))
    metric = METRICS["accuracy"]
    chosen = {"like": None, **metric.defaults, **params}
    rows = rows_of(metric, inputs, chosen)
    assert metric.interval is not None
    found = metric.interval(rows, chosen, np.ones(60), 0.95)
    share, z = value_of("accuracy", inputs, **params), 1.959963984540054
    assert found is not None
    for bound in found:
        # the ends are the shares from which the observed one is z standard errors away
        assert abs(bound - share) == pytest.approx(z * np.sqrt(bound * (1 - bound) / 60), rel=1e-9)
    many = labels(default_rng(0))[0]
    assert metric.interval(rows_of(metric, many, chosen | {"task": None}), chosen, np.ones(60), 0.95) is None


def assert_equal(found: Any, expected: Any) -> None:
    """Compare values of any shape, what is undefined included."""
    first, second = [*_numbers(found)], [*_numbers(expected)]
    assert [isinstance(one, Undefined) for one in first] == [isinstance(one, Undefined) for one in second]
    defined = [[one for one in some if not isinstance(one, Undefined)] for some in (first, second)]
    np.testing.assert_allclose(*defined, rtol=1e-12, atol=1e-15)


def _numbers(value: Any) -> list[Any]:
    """Return all numbers of a value."""
    if isinstance(value, dict):
        return [one for part in value.values() for one in _numbers(part)]
    if isinstance(value, list | np.ndarray):
        return [one for part in value for one in _numbers(part)]
    return [value]


def test_texts_match_exactly_or_not() -> None:
    inputs = {"predictions": ["Paris", "the cat", "", "é"], "targets": ["Paris", "The cat", "", "e\u0301"]}
    assert value_of("exact_match", inputs) == 0.5
    assert each_of("exact_match", inputs).tolist() == [1, 0, 1, 0]
    assert value_of("exact_match", inputs, weights=[3, 1, 0, 0]) == 0.75
    assert_rows_depend_on_their_sample_alone("exact_match", inputs)


@pytest.mark.parametrize("count", [2, 50_000])
def test_texts_take_the_place_of_tensors_in_a_request(client: Client, count: int) -> None:
    texts = {"predictions": ["a", "b"] * (count // 2), "targets": ["a", "c"] * (count // 2)}
    answer = client.post("/v1/metrics/exact_match", json={"inputs": texts, "interval": 0.9})
    assert answer.json()["value"] == 0.5
    for predictions, targets, pointer in (
        (texts["predictions"], [0, 1] * (count // 2), "/inputs/predictions"),
        ([0, 1] * (count // 2), texts["targets"], "/inputs/predictions"),
        (["a", 1] * (count // 2), texts["targets"], "/inputs/predictions/1"),
        (["a"], texts["targets"], "/inputs/targets"),
    ):
        sent = {"inputs": {"predictions": predictions, "targets": targets}, "params": {"task": "multiclass"}}
        refused = client.post("/v1/metrics/exact_match", json=sent)
        assert refused.status_code == 422, refused.text
        assert pointer in [one["pointer"] for one in refused.json()["errors"]]
    other = client.post("/v1/metrics/accuracy", json={"inputs": texts, "params": {"task": "multiclass"}})
    assert other.status_code == 422


def test_faults_of_decisions_say_what_to_change(client: Client) -> None:
    many = {"task": "multiclass"}
    for name, predictions, targets, params, pointer in (
        ("f1", [0, 1], [0, 1], {}, "/params/task"),
        ("f1", [[0.1, 0.9]], [1], {"num_classes": 3}, "/params/num_classes"),
        ("f1", [[0.1, 0.9]], [2], {}, "/inputs/targets/0"),
        ("f1", [0, -1], [0, 1], {**many, "ignore_index": -1}, "/inputs/predictions"),
        ("accuracy", [0, 1], [0, 1], {**many, "top_k": 2}, "/params/top_k"),
        ("f1", [5000], [0], many, "/params/num_classes"),
        ("confusion_matrix", [0, 1], [0, 1], {**many, "num_classes": 5000}, "/params/num_classes"),
        ("confusion_matrix", [0, 5000], [0, 1], many, "/inputs/predictions"),
        ("log_loss", [[0.2, 0.3]], [0], {}, "/inputs/predictions/0/0"),
        ("balanced_accuracy", [0, 1], [0, 1], {}, "/params/task"),
        ("calibration_error", [1.5], [0], {"task": "binary"}, "/inputs/predictions/0"),
    ):
        sent = {"inputs": {"predictions": predictions, "targets": targets}, "params": params}
        answer = client.post(f"/v1/metrics/{name}", json=sent)
        assert answer.status_code == 422, (name, answer.text)
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "name", [*DECISIONS, *PROBABILITIES, "auroc", "average_precision", "roc_curve", "nmi", "ari"]
)
@pytest.mark.parametrize("weight", [1e308, 1e160, 1e-310])
def test_weights_of_any_size_give_numbers_or_reasons(client: Client, name: str, weight: float) -> None:
    params = {"task": "binary"} if "task" in METRICS[name].params else {}
    predictions = [0, 1, 1, 0] if name in ("nmi", "ari") else [0.25, 0.75, 0.5, 0.75]
    inputs = {"predictions": predictions, "targets": [0, 1, 1, 0]}
    sent = {"inputs": inputs, "params": params, "sample_weight": [weight] * 4}
    answer = client.post(f"/v1/metrics/{name}", json=sent)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if isinstance(found["value"], float):
        assert np.isfinite(found["value"])
    elif found["value"] is None:
        assert found["undefined"]["value"] == "it is beyond the range of numbers" or name == "ari"


def test_a_long_result_by_class_has_no_interval_that_takes_minutes(client: Client) -> None:
    inputs = {"predictions": [65535], "targets": [0]}
    params = {"task": "multiclass", "num_classes": 65536}
    assert client.post("/v1/metrics/f1", json={"inputs": inputs, "params": params}).status_code == 200
    asked = {"inputs": inputs, "params": params, "interval": 0.9}
    assert client.post("/v1/metrics/f1", json=asked).status_code == 413
    ignored = {"predictions": [1, 9999], "targets": [1, 9999]}
    left_out = {"task": "multiclass", "ignore_index": 9999}
    answer = client.post("/v1/metrics/f1", json={"inputs": ignored, "params": left_out})
    assert answer.json()["value"]["per_class"] == [None, 1.0]


def test_a_roc_curve_like_torchmetrics_has_its_points() -> None:
    rng = default_rng(5)
    for scores, targets in (
        (rng.random(60).round(1), rng.integers(0, 2, 60)),
        (np.array([0.2, 0.4]), np.zeros(2, np.int64)),
        (np.array([0.2, 0.4]), np.ones(2, np.int64)),
    ):
        inputs = {"predictions": scores, "targets": targets}
        found = value_of("roc_curve", inputs, like="torchmetrics")
        peer = tm.binary_roc(torch.tensor(scores), torch.tensor(targets))
        for name, expected in zip(("fpr", "tpr", "thresholds"), peer, strict=True):
            np.testing.assert_allclose(found[name], expected.double().numpy(), rtol=1e-6)
        rate = tm.binary_eer(torch.tensor(scores), torch.tensor(targets)).item()
        assert found["equal_error_rate"]["rate"] == pytest.approx(rate, rel=1e-6)
