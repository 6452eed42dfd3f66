"""Regression: values against scikit-learn, scipy, torchmetrics and definitions."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torchmetrics.functional.regression as peers
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from service.catalogue.metric import Undefined
from tests.metrics.helpers import (
    assert_rows_depend_on_their_sample_alone,
    each_of,
    reason,
    value_of,
)

Array = NDArray[np.float64]
BOTH = ("predictions", "targets")
SKLEARN: dict[str, Callable[..., Any]] = {
    "mae": sklearn.mean_absolute_error,
    "mse": sklearn.mean_squared_error,
    "rmse": sklearn.root_mean_squared_error,
    "median_absolute_error": sklearn.median_absolute_error,
    "mape": sklearn.mean_absolute_percentage_error,
    "r2": sklearn.r2_score,
    "explained_variance": sklearn.explained_variance_score,
    "pinball": sklearn.mean_pinball_loss,
}
NAMES = (*SKLEARN, "max_error", "smape", "wape", "pearson", "spearman", "kendall", "concordance")


def sample(seed: int, shape: Any, ties: bool = False) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=shape) + 3
    predictions = targets + rng.normal(size=shape)
    if ties:
        targets, predictions = targets.round(), predictions.round() + 0.5
    return dict(zip(BOTH, (predictions, targets), strict=True))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SKLEARN)
def test_values_equal_scikit_learn(name: str, weighted: bool) -> None:
    for seed, size in enumerate((2, 3, 10, 101)):
        inputs = sample(seed, (size, 3))
        weights = np.random.default_rng(seed).uniform(0.1, 2, size) if weighted else None
        expected = SKLEARN[name](
            inputs["targets"], inputs["predictions"], sample_weight=weights, multioutput="raw_values"
        )
        value = value_of(name, inputs, weights=weights)
        np.testing.assert_allclose(value["per_output"], expected, rtol=1e-12)
        assert value["mean"] == pytest.approx(np.mean(expected), rel=1e-12)
        single = {key: column[:, 0] for key, column in inputs.items()}
        assert value_of(name, single, weights=weights) == value["per_output"][0]


def test_pinball_of_a_level_equals_scikit_learn() -> None:
    inputs = sample(0, 50)
    expected = sklearn.mean_pinball_loss(inputs["targets"], inputs["predictions"], alpha=0.9)
    assert value_of("pinball", inputs, quantile=0.9) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_equal_scipy(ties: bool) -> None:
    oracles = {
        "pearson": scipy.stats.pearsonr,
        "spearman": scipy.stats.spearmanr,
        "kendall": scipy.stats.kendalltau,
    }
    for (name, oracle), size in itertools.product(oracles.items(), (3, 5, 20, 333)):
        inputs = sample(size, size, ties)
        expected = oracle(inputs["predictions"], inputs["targets"])[0]
        assert value_of(name, inputs) == pytest.approx(expected, abs=1e-13), (name, size)


def test_max_error_smape_and_wape_equal_their_definitions() -> None:
    inputs = sample(1, 40)
    error, targets = np.abs(inputs["predictions"] - inputs["targets"]), inputs["targets"]
    assert value_of("max_error", inputs) == sklearn.max_error(targets, inputs["predictions"])
    assert value_of("wape", inputs) == pytest.approx(error.sum() / np.abs(targets).sum(), rel=1e-14)
    size = np.abs(targets) + np.abs(inputs["predictions"])
    assert value_of("smape", inputs) == pytest.approx((2 * error / size).mean(), rel=1e-14)


def test_concordance_divides_by_n_or_like_torchmetrics_by_n_minus_1() -> None:
    inputs = sample(2, 12)
    x, y = inputs.values()
    expected = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert value_of("concordance", inputs) == pytest.approx(expected, rel=1e-13)
    peer = peers.concordance_corrcoef(torch.tensor(x), torch.tensor(y)).item()
    assert value_of("concordance", inputs, like="torchmetrics") == pytest.approx(peer, rel=1e-9)
    flat = {"predictions": np.array([1.0, 2.0]), "targets": np.zeros(2)}
    assert value_of("concordance", flat) == 0
    assert reason(value_of("concordance", flat, like="torchmetrics")) == "all targets are equal"
    assert "all predictions" in reason(
        value_of("concordance", dict(zip(BOTH, reversed(flat.values()), strict=True)), like="torchmetrics")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_an_integer_equals_repeated_rows_and_0_leaves_out(name: str) -> None:
    rng = np.random.default_rng(5)
    for ties in (False, True):
        inputs = sample(7, 30, ties)
        inputs["targets"][inputs["targets"] == 0] = 1
        weights = rng.integers(0, 4, 30).astype(float)
        spoilt = {key: column.copy() for key, column in inputs.items()}
        spoilt["predictions"][weights == 0] = np.inf
        repeated = {key: np.repeat(column, weights.astype(int)) for key, column in inputs.items()}
        expected = pytest.approx(value_of(name, repeated), rel=1e-11, abs=1e-13)
        assert value_of(name, inputs, weights=weights) == expected
        assert value_of(name, spoilt, weights=weights) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(17,), (17, 2), (17, 9)])
def test_rows_depend_on_their_sample_alone(name: str, shape: tuple[int, ...]) -> None:
    assert_rows_depend_on_their_sample_alone(name, sample(3, shape))


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_value_is_undefined(name: str) -> None:
    empty = {key: np.zeros(0) for key in BOTH}
    assert reason(value_of(name, empty)) == "there are no samples"
    assert reason(value_of(name, sample(0, 3), weights=[0, 0, 0])) == "there are no samples"
    if name not in ("median_absolute_error", "spearman", "kendall"):
        infinite = {"predictions": np.array([np.inf, 1.0, 2.0]), "targets": np.array([1.0, 2.0, 5.0])}
        assert "infinite" in reason(value_of(name, infinite))
    huge = {"predictions": np.array([1e308, -1e308, 1e308]), "targets": np.array([-1e308, 1e308, 0.5])}
    tiny = {key: column * 1e-300 for key, column in sample(0, 5).items()}
    for inputs in (huge, tiny):
        value = value_of(name, inputs)
        assert isinstance(value, Undefined) or np.isfinite(value)
    table = {
        "predictions": np.array([[1.0, 1], [2, 2], [4, 3]]),
        "targets": np.array([[2.0, 0], [2, 0], [2, 0]]),
    }
    value = value_of(name, table)
    defined = [one for one in value["per_output"] if not isinstance(one, Undefined)]
    assert value["mean"] == np.mean(defined) if defined else isinstance(value["mean"], Undefined)


def test_constant_targets_have_no_r2_unless_like_scikit_learn() -> None:
    for name in ("r2", "explained_variance", "pearson", "spearman", "kendall"):
        inputs = {"predictions": np.array([0.1, 0.2, 0.4]), "targets": np.array([0.125, 0.125, 0.125])}
        assert reason(value_of(name, inputs)) == "all targets are equal"
        # of four rows, the replicate draws three that are equal
        more = {key: np.append(column, 7.0) for key, column in inputs.items()}
        assert reason(value_of(name, more, weights=[1, 3, 1, 0])) == "all targets are equal"
        if name in ("r2", "explained_variance"):
            assert value_of(name, inputs, like="sklearn") == SKLEARN[name](*reversed(inputs.values()))
            right: dict[str, Any] = dict.fromkeys(BOTH, inputs["targets"])
            assert value_of(name, right, like="sklearn") == SKLEARN[name](*right.values()) == 1
            alone = {key: column[:1] for key, column in inputs.items()}
            if name == "r2":
                assert isinstance(value_of(name, alone, like="sklearn"), Undefined)
            else:
                assert value_of(name, alone, like="sklearn") == SKLEARN[name](*reversed(alone.values())) == 1
        else:
            swapped: dict[str, Any] = dict(zip(BOTH, reversed(inputs.values()), strict=True))
            assert reason(value_of(name, swapped)) == "all predictions are equal"
    same = {"predictions": np.full(3, 0.1), "targets": np.full(3, 0.3)}
    assert isinstance(value_of("concordance", same), Undefined)


def test_a_target_of_0_has_no_relative_error_unless_like_a_peer() -> None:
    inputs = {"predictions": np.array([0.5, 2.0, 0.0]), "targets": np.array([0.0, 1.0, 0.0])}
    tensors = [torch.tensor(inputs[key]) for key in BOTH]
    assert reason(value_of("mape", inputs)).startswith("a target is 0")
    assert reason(value_of("smape", inputs)).startswith("a target and its prediction are both 0")
    expected = sklearn.mean_absolute_percentage_error(inputs["targets"], inputs["predictions"])
    assert value_of("mape", inputs, like="sklearn") == pytest.approx(expected, rel=1e-14)
    for name, peer in (
        ("mape", peers.mean_absolute_percentage_error),
        ("smape", peers.symmetric_mean_absolute_percentage_error),
    ):
        assert value_of(name, inputs, like="torchmetrics") == pytest.approx(peer(*tensors).item(), rel=1e-12)
    assert value_of("wape", inputs) == 1.5
    assert value_of("mape", inputs, weights=[0, 1, 0]) == 1
    np.testing.assert_array_equal(each_of("mape", inputs), [np.nan, 1, np.nan])


@pytest.mark.parametrize(
    "name", ["pearson", "spearman", "kendall", "concordance", "r2", "explained_variance"]
)
def test_perfect_agreement_is_1_exactly(name: str) -> None:
    for seed, size in enumerate((2, 3, 7, 50)):
        targets = sample(seed, size)["targets"]
        assert value_of(name, {"predictions": targets, "targets": targets}) == 1
        if name not in ("concordance", "r2", "explained_variance"):
            assert value_of(name, {"predictions": -2 * targets, "targets": targets}) == -1


def test_the_median_of_equal_weights_is_the_middle_whatever_their_size() -> None:
    inputs = {"predictions": np.arange(10.0), "targets": np.zeros(10)}
    for weight in (0.1, 0.3, 1.0, 1e9):
        assert value_of("median_absolute_error", inputs, weights=[weight] * 10) == 4.5


def test_correlations_keep_their_digits_far_from_zero() -> None:
    x = np.array([1.0, 2, 4, 8, 16]) * 2**-20
    y = np.array([1.0, 3, 3, 9, 14]) * 2**-20
    near, far = ({"predictions": x + offset, "targets": y + offset} for offset in (0.0, 2.0**25))
    for name in ("r2", "explained_variance", "pearson", "concordance"):
        assert value_of(name, far) == pytest.approx(value_of(name, near), rel=1e-13)


def test_crps_equals_the_integral_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    for members in (1, 2, 3, 20):
        inputs = {"predictions": rng.normal(size=(15, members)).round(1), "targets": rng.normal(size=15)}
        expected = []
        for ensemble, outcome in zip(inputs["predictions"], inputs["targets"], strict=True):
            knots = np.sort(np.append(ensemble, outcome))
            middles = (knots[1:] + knots[:-1]) / 2
            below = (ensemble <= middles[:, None]).mean(1) - (outcome <= middles)
            expected.append((below**2 * np.diff(knots)).sum())
        assert value_of("crps", inputs) == pytest.approx(np.mean(expected), rel=1e-12)
        np.testing.assert_allclose(each_of("crps", inputs), expected, rtol=1e-11, atol=1e-15)
        assert_rows_depend_on_their_sample_alone("crps", inputs)


def survival(seed: int, size: int, weights: Array | None = None) -> tuple[dict[str, NDArray[Any]], float]:
    """Return random censored times, and the index by its definition."""
    rng = np.random.default_rng(seed)
    risk, time = rng.integers(0, 6, size).astype(float), rng.integers(0, 8, size).astype(float)
    event = rng.integers(0, 2, size)
    weights = np.ones(size) if weights is None else weights
    right = whole = 0.0
    for i, j in itertools.permutations(range(size), 2):
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            whole += weights[i] * weights[j]
            right += weights[i] * weights[j] * ((risk[i] > risk[j]) + (risk[i] == risk[j]) / 2)
    return {"predictions": risk, "targets": time, "events": event}, right / whole if whole else np.nan


def test_c_index_equals_its_definition() -> None:
    for seed, size in itertools.product(range(8), (3, 10, 40)):
        inputs, expected = survival(seed, size)
        value = value_of("c_index", inputs)
        if np.isnan(expected):
            assert isinstance(value, Undefined)
            continue
        assert value == pytest.approx(expected, rel=1e-13)
        weights = np.random.default_rng(seed).uniform(0, 2, size)
        inputs, expected = survival(seed, size, weights)
        assert value_of("c_index", inputs, weights=weights) == pytest.approx(expected, rel=1e-12)
    assert_rows_depend_on_their_sample_alone("c_index", survival(0, 10)[0])
    assert isinstance(
        value_of("c_index", {key: np.zeros(3) for key in ("predictions", "targets", "events")}), Undefined
    )


def test_kendall_with_weights_counts_pairs_by_the_product_of_their_weights() -> None:
    rng = np.random.default_rng(1)
    inputs = sample(4, 40, ties=True)
    x, y, weights = *inputs.values(), rng.uniform(0, 3, 40)
    signs = [np.sign(one[:, None] - one) for one in (x, y)]
    products = weights[:, None] * weights
    scale = np.sqrt(np.prod([(products * sign**2).sum() for sign in signs]))
    expected = (products * signs[0] * signs[1]).sum() / scale
    assert value_of("kendall", inputs, weights=weights) == pytest.approx(expected, rel=1e-12)


def test_integers_and_half_precision_are_compared_in_float64() -> None:
    inputs = {
        "predictions": torch.tensor([2**31 - 1, -(2**31)], dtype=torch.int32),
        "targets": torch.tensor([-(2**31), 5]),
    }
    assert value_of("max_error", inputs) == 2**32 - 1
    halves = {
        "predictions": torch.tensor([6e4, 6e4], dtype=torch.float16),
        "targets": torch.tensor([-6e4, 6e4]),
    }
    assert value_of("mae", halves) == 6e4
