"""Inputs at the edges of their types: answers are numbers, or null with a true reason, or clear refusals."""

import base64
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch

from service.catalogue.metric import AnyMetric, Listed
from service.metrics import METRICS
from service.wire.describe_metric import metric_example
from tests.client import Client

LARGEST = np.finfo(np.float64).max
TENSORS = [
    metric for metric in METRICS.values() if any(not isinstance(s, Listed) for s in metric.inputs.values())
]
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64")


def packed(values: Any, dtype: str = "float64") -> dict[str, Any]:
    """Return values as base64 of a type."""
    tensor = torch.as_tensor(np.asarray(values, np.float64)).to(getattr(torch, dtype)).contiguous()
    data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return {"dtype": dtype, "shape": [*tensor.shape], "data": base64.b64encode(data).decode()}


def asked(client: Client, name: str, predictions: Any, targets: Any, **more: Any) -> Any:
    """Return the answer for predictions and targets, with params and other members."""
    members = {
        name: more.pop(name) for name in ("like", "sample_weight", "slices", "interval") if name in more
    }
    inputs = {"predictions": predictions, "targets": targets}
    body = {"inputs": inputs, "params": more, **members}
    answer = client.post(f"/v1/metrics/{name}", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert {*nulls(found["value"])} <= {*found.get("undefined", {})}, found
    return found


def nulls(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of nulls."""
    if value is None:
        yield "/".join(path) or "value"
    elif isinstance(value, dict | list):
        members = cast(Any, value.items() if isinstance(value, dict) else enumerate(cast(list[Any], value)))
        for name, one in members:
            yield from nulls(one, (*path, str(name)))


def why(found: Any) -> str:
    """Return why a value is null."""
    assert found["value"] is None, found
    return found["undefined"]["value"]


@pytest.mark.parametrize("metric", TENSORS, ids=lambda metric: metric.name)
def test_every_type_is_answered_or_refused_with_a_reason(metric: AnyMetric, client: Client) -> None:
    example = metric_example(metric)
    tensors = [name for name, spec in metric.inputs.items() if not isinstance(spec, Listed)]
    for dtype in DTYPES:
        for names in (tensors, tensors[:1], tensors[1:]):
            values = {
                name: packed(value, dtype) if name in names else value
                for name, value in example["inputs"].items()
            }
            answer = client.post(f"/v1/metrics/{metric.name}", json={**example, "inputs": values})
            assert answer.status_code in (200, 422), (dtype, names, answer.text)


@pytest.mark.parametrize("metric", TENSORS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("extreme", [np.inf, -np.inf, LARGEST, -LARGEST, 1e200, 5e-324], ids="{:g}".format)
def test_extreme_numbers_are_answered_or_refused_with_a_reason(
    metric: AnyMetric, extreme: float, client: Client
) -> None:
    example = metric_example(metric)
    for name, spec in metric.inputs.items():
        if isinstance(spec, Listed):
            continue
        array = np.asarray(example["inputs"][name], np.float64)
        for places in (slice(0, 1), slice(None)):
            sent = array.copy()
            sent.reshape(-1)[places] = extreme
            inputs = {**example["inputs"], name: packed(sent)}
            answer = client.post(f"/v1/metrics/{metric.name}", json={**example, "inputs": inputs})
            assert answer.status_code in (200, 422), (name, answer.text)
            if answer.status_code == 200:
                assert {*nulls(answer.json()["value"])} <= {*answer.json().get("undefined", {})}, answer.text


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_extreme_weights_are_weights(metric: AnyMetric, client: Client) -> None:
    example = metric_example(metric)
    plain = client.post(f"/v1/metrics/{metric.name}", json=example).json()
    for weight in (1e308, 5e-324, 0.0):
        body = {**example, "sample_weight": [weight] * plain["samples"], "interval": 0.9, "replicates": 5}
        answer = client.post(f"/v1/metrics/{metric.name}", json=body)
        assert answer.status_code == 200, (weight, answer.text)
        assert {*nulls(answer.json()["value"])} <= {*answer.json().get("undefined", {})}, answer.text


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_extreme_params_are_answered_or_refused_with_a_reason(metric: AnyMetric, client: Client) -> None:
    example = metric_example(metric)
    numbers = [name for name, default in metric.defaults.items() if isinstance(default, int | float)]
    for name in {*numbers, *({"data_range"} & {*metric.params})}:
        for value in (LARGEST, 1e200, 1e-200, 5e-324, -LARGEST, 2**53):
            body = {**example, "params": {**example.get("params", {}), name: value}}
            answer = client.post(f"/v1/metrics/{metric.name}", json=body)
            assert answer.status_code in (200, 413, 422), (name, value, answer.text)
            if answer.status_code == 200:
                assert {*nulls(answer.json()["value"])} <= {*answer.json().get("undefined", {})}, answer.text


@pytest.mark.parametrize(("scores", "marks"), [([0.5, 0.5], [0, 1]), ([0.5], [1])])
def test_a_curve_of_one_score_is_written(client: Client, scores: list[float], marks: list[int]) -> None:
    value = asked(client, "pr_curve", scores, marks)["value"]
    assert value["precision"] == [sum(marks) / len(marks), 1.0]
    assert (value["recall"], value["thresholds"]) == ([1.0, 0.0], [0.5])
    sliced = asked(client, "pr_curve", [0.1, 0.5, 0.5], [0, 0, 1], slices={"a": ["x", "y", "y"]})
    assert sliced["slices"]["a=y"]["value"]["thresholds"] == [0.5]
    assert sliced["slices"]["a=x"]["undefined"]["recall"] == "there are no positives"


def test_no_curve_has_a_threshold_out_of_range(client: Client) -> None:
    found = asked(client, "roc_curve", [LARGEST, 0.0], [1, 0])
    assert found["value"]["thresholds"] == [None, LARGEST, 0.0]
    assert found["undefined"] == {"thresholds/0": "it is beyond the range of numbers"}


@pytest.mark.parametrize("name", ["mean_iou", "dice_score", "pixel_accuracy"])
def test_scores_of_pixels_may_be_booleans(client: Client, name: str) -> None:
    scores = [[[[True, False]], [[False, True]]]]
    value = asked(client, name, scores, [[[0, 1]]])["value"]
    assert (value if name == "pixel_accuracy" else value["macro"]) == 1.0


def test_features_may_be_large_and_must_be_finite(client: Client) -> None:
    assert (
        why(asked(client, "frechet_distance", packed([[np.inf], [0]]), [[0.0], [1.0]]))
        == "a feature is infinite"
    )
    for side in ([[1e308], [-1e308]], [[1e200], [0.0]]):
        assert "too large" in why(asked(client, "frechet_distance", side, [[0.0], [1.0]]))
    sides = np.random.default_rng(0).normal(size=(2, 9, 3))
    plain = asked(client, "frechet_distance", *sides.tolist())["value"]
    large = asked(client, "frechet_distance", *np.ldexp(sides, 450).tolist())["value"]
    assert large == pytest.approx(math.ldexp(plain, 900), rel=1e-9)
    infinite = np.vstack([sides[0], [[np.inf] * 3]])
    longer = np.vstack([sides[1], [[0.0] * 3]])
    weights = [1.0] * 9 + [0.0]
    found = asked(client, "frechet_distance", packed(infinite), longer.tolist(), sample_weight=weights)
    assert found["value"] == plain


@pytest.mark.parametrize("name", ["ssim", "psnr"])
def test_a_range_of_pixels_is_only_a_unit(client: Client, name: str) -> None:
    images = np.random.default_rng(1).random((2, 2, 1, 5, 5))
    more = {"window_size": 3} if name == "ssim" else {}
    plain = asked(client, name, *images.tolist(), data_range=1.0, **more)["value"]
    for exponent in (-900, -500, 500, 900):
        sent = np.ldexp(images, exponent).tolist()
        found = asked(client, name, *sent, data_range=math.ldexp(1.0, exponent), **more)["value"]
        assert found == pytest.approx(plain, rel=1e-12)


def test_an_image_of_infinite_pixels_has_no_value_but_may_weigh_nothing(client: Client) -> None:
    predictions, targets = np.zeros((2, 1, 3, 3)), np.ones((2, 1, 3, 3))
    predictions[1] = np.inf
    for name, more in (
        ("psnr", {}),
        ("ssim", {"window_size": 3}),
        ("ms_ssim", {"window_size": 3, "weights": [1.0]}),
    ):
        assert "a pixel is infinite" in why(
            asked(client, name, packed(predictions), targets.tolist(), data_range=1.0, **more)
        )
        alone = asked(client, name, predictions[:1].tolist(), targets[:1].tolist(), data_range=1.0, **more)
        weighed = asked(
            client,
            name,
            packed(predictions),
            targets.tolist(),
            data_range=1.0,
            **more,
            sample_weight=[1.0, 0.0],
        )
        assert weighed["value"] == alone["value"] is not None


def test_a_wide_window_weighs_all_its_pixels_alike(client: Client) -> None:
    images = np.random.default_rng(2).random((2, 1, 1, 3, 3)).tolist()
    flat, wide = (
        asked(client, "ssim", *images, data_range=1.0, window_size=3, sigma=sigma)["value"]
        for sigma in (1e9, 1e308)
    )
    assert flat == pytest.approx(wide, rel=1e-12)


def test_the_median_takes_large_weights(client: Client) -> None:
    found = asked(client, "median_absolute_error", [1.0, 3.0], [0.0, 0.0], sample_weight=[1e308, 1e308])
    assert found["value"] == 2.0


@pytest.mark.parametrize("scale", [1e200, 1e-200, 2.0**1000, LARGEST / 8])
def test_metrics_without_squares_in_their_value_are_in_range_where_it_is(
    client: Client, scale: float
) -> None:
    rng = np.random.default_rng(3)
    predictions, targets = rng.uniform(1, 2, (2, 20))
    for name in ("rmse", "mae", "median_absolute_error", "max_error", "pinball"):
        plain = asked(client, name, predictions.tolist(), targets.tolist())["value"]
        found = asked(client, name, (predictions * scale).tolist(), (targets * scale).tolist())["value"]
        assert found == pytest.approx(plain * scale, rel=1e-12), name
    free = ("mape", "smape", "wape", "r2", "explained_variance", "pearson", "spearman", "concordance")
    for name in free:
        plain = asked(client, name, predictions.tolist(), targets.tolist())["value"]
        found = asked(client, name, (predictions * scale).tolist(), (targets * scale).tolist())["value"]
        assert found == pytest.approx(plain, rel=1e-11), name
    apart = asked(client, "pearson", (predictions * scale).tolist(), (targets / scale).tolist())["value"]
    assert apart == pytest.approx(
        asked(client, "pearson", predictions.tolist(), targets.tolist())["value"], rel=1e-11
    )


def test_reasons_are_true(client: Client) -> None:
    assert asked(client, "rmse", [1e200], [0.0])["value"] == 1e200
    assert asked(client, "rmse", [[1e200, 0.0]], [[0.0, 0.0]])["value"]["per_output"] == [1e200, 0.0]
    assert why(asked(client, "mse", [1e200], [0.0])) == "an error is infinite, or too large for float64"
    assert why(asked(client, "mape", [1.0], [5e-324])) == (
        "an error is infinite, or its share of its size too large for float64"
    )
    assert why(asked(client, "r2", packed([np.inf, 1.0]), [0.0, 1.0])) == "a prediction is infinite"


def test_a_small_chance_to_pass_keeps_its_digits(client: Client) -> None:
    assert asked(client, "pass_at_k", [1], [10**15], k=1)["value"] == 1e-15
    assert asked(client, "pass_at_k", [1], [10**15], k=100)["value"] == pytest.approx(1e-13, rel=1e-14)
    for right, drawn, k in ((3, 10, 4), (7, 10, 4), (1, 10, 10), (10, 10, 1), (0, 10, 5), (5, 1000, 100)):
        expected = (math.comb(drawn, k) - math.comb(drawn - right, k)) / math.comb(drawn, k)
        found = asked(client, "pass_at_k", [right], [drawn], k=k)["value"]
        assert found == pytest.approx(expected, rel=1e-14) and (expected != 1 or found == 1)


def test_a_token_of_infinite_logit_is_certain(client: Client) -> None:
    infinite = packed([[[np.inf, 0.0], [np.inf, np.inf]]])
    found = asked(client, "perplexity", infinite, [[0, 1]], from_logits=True)
    assert found["value"] == pytest.approx(math.sqrt(2), rel=1e-15)
    assert "probability 0" in why(asked(client, "perplexity", infinite, [[1, 1]], from_logits=True))
