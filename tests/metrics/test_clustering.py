"""Clusters and classes: agreement equals scikit-learn's, and equal partitions have exactly 1."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from numpy.random import default_rng

from service.catalogue.metric import Undefined
from service.catalogue.table import Array
from tests.metrics.helpers import assert_rows_depend_on_their_sample_alone, reason, selected, value_of

sk: Any = sklearn.metrics
NAMES = ["nmi", "ari", "v_measure"]


def partitions(seed: int = 0, count: int = 200) -> dict[str, Array]:
    """Clusters that partly follow classes; numbers of either are any integers."""
    rng = default_rng(seed)
    classes = rng.integers(0, 5, count)
    clusters = np.where(rng.random(count) < 0.7, classes * 7 - 9, rng.integers(10**12, 10**12 + 4, count))
    return {"predictions": clusters, "targets": classes}


def expected(name: str, inputs: dict[str, Array]) -> Any:
    """Return scikit-learn's value."""
    targets, predictions = inputs["targets"], inputs["predictions"]
    if name == "v_measure":
        parts = sk.homogeneity_completeness_v_measure(targets, predictions)
        return dict(zip(("homogeneity", "completeness", "v_measure"), parts, strict=True))
    return (sk.normalized_mutual_info_score if name == "nmi" else sk.adjusted_rand_score)(
        targets, predictions
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_agreement_equals_that_of_scikit_learn(name: str, seed: int) -> None:
    inputs = partitions(seed)
    assert value_of(name, inputs) == pytest.approx(expected(name, inputs), rel=1e-12)
    chance = {**inputs, "predictions": default_rng(seed).integers(0, 6, 200)}
    assert value_of(name, chance) == pytest.approx(expected(name, chance), rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("predictions", "targets"),
    [
        ([0, 0, 0], [1, 1, 1]),
        ([0, 1, 2], [5, 4, 3]),
        ([0, 0, 1], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 1]),
        ([0, 1, 2], [0, 0, 0]),
        ([0, 0, 1, 1], [0, 1, 0, 1]),
        ([0, 0, 1, 2], [4, 4, 1, 1]),
        ([7], [9]),
    ],
)
def test_partitions_of_few_parts_equal_those_of_scikit_learn(
    name: str, predictions: list[int], targets: list[int]
) -> None:
    inputs = {"predictions": np.array(predictions), "targets": np.array(targets)}
    assert value_of(name, inputs) == pytest.approx(expected(name, inputs), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_equal_partitions_have_exactly_1(name: str) -> None:
    classes = default_rng(0).integers(0, 17, 1000)
    found = value_of(name, {"predictions": -classes, "targets": classes})
    assert found == (1.0 if name != "v_measure" else dict.fromkeys(found, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_weights_repeat_samples(name: str) -> None:
    inputs = partitions()
    counts = default_rng(1).integers(0, 4, 200)
    repeated = value_of(name, selected(inputs, np.repeat(np.arange(200), counts)))
    assert value_of(name, inputs, weights=counts) == pytest.approx(repeated, rel=1e-13)
    assert_rows_depend_on_their_sample_alone(name, inputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1e90, 1e200])
def test_weights_of_any_scale_give_numbers(name: str, scale: float) -> None:
    found = value_of(name, partitions(), weights=np.full(200, scale))
    numbers = found.values() if isinstance(found, dict) else [found]
    assert all(isinstance(number, Undefined) or np.isfinite(number) for number in numbers)


@pytest.mark.parametrize("name", NAMES)
def test_without_samples_there_is_no_agreement(name: str) -> None:
    inputs = partitions()
    for weights, sent in (([], selected(inputs, [])), (np.zeros(200), inputs)):
        found = value_of(name, sent, weights=weights)
        for number in found.values() if isinstance(found, dict) else [found]:
            assert reason(number) == "there are no samples"
