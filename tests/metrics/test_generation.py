"""Generation: perplexity against torchmetrics and logarithms in float64, pass at k against binomials."""

from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torchmetrics.functional.text import perplexity

from tests.client import Client
from tests.metrics.helpers import assert_rows_depend_on_their_sample_alone, each_of, reason, value_of


def sequences(seed: int, shape: tuple[int, int, int] = (7, 5, 11)) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"predictions": rng.normal(size=shape) * 3, "targets": rng.integers(0, shape[-1], shape[:2])}


def test_perplexity_equals_torchmetrics() -> None:
    for seed in range(4):
        inputs = sequences(seed)
        tensors = [torch.tensor(one) for one in inputs.values()]
        for ignore in (None, 3):
            expected = perplexity(*tensors, ignore_index=ignore).item()
            value = value_of("perplexity", inputs, from_logits=True, ignore_index=ignore)
            assert value == pytest.approx(expected, rel=1e-12)
        probable = {**inputs, "predictions": softmax(inputs["predictions"], -1)}
        assert value_of("perplexity", probable) == pytest.approx(
            value_of("perplexity", inputs, from_logits=True), rel=1e-12
        )


def test_perplexity_of_logits_is_exact_and_ignored_tokens_may_be_any_number() -> None:
    inputs = sequences(1)
    inputs["predictions"] *= 300
    logs = log_softmax(inputs["predictions"], -1)
    known = np.take_along_axis(logs, inputs["targets"][..., None], -1)[..., 0]
    kept = inputs["targets"] != 0
    inputs["targets"] = np.where(kept, inputs["targets"], -100)
    surprise = -(known * kept).sum() / kept.sum()
    value = value_of("perplexity", inputs, from_logits=True, ignore_index=-100)
    if surprise < 709:
        assert value == pytest.approx(np.exp(surprise), rel=1e-9)
    each = each_of("perplexity", inputs, from_logits=True, ignore_index=-100)
    assert each.shape == (7,)


def test_perplexity_is_undefined_where_a_token_is_impossible_or_nothing_counts() -> None:
    inputs = {"predictions": np.array([[[1.0, 0.0]], [[0.5, 0.5]]]), "targets": np.array([[1], [0]])}
    assert "probability 0" in reason(value_of("perplexity", inputs))
    assert value_of("perplexity", inputs, weights=[0, 1]) == 2
    assert reason(value_of("perplexity", inputs, weights=[0, 0])) == "there are no tokens"
    np.testing.assert_array_equal(each_of("perplexity", inputs), [np.nan, 2])
    ignored = {**inputs, "targets": np.full((2, 1), -1)}
    assert reason(value_of("perplexity", ignored, ignore_index=-1)) == "there are no tokens"
    infinite = {**inputs, "predictions": np.array([[[np.inf, 0.0]], [[0.0, 0.0]]])}
    assert "perplexity" in reason(value_of("perplexity", infinite, from_logits=True))


@pytest.mark.parametrize("shape", [(9, 5, 11), (9, 1, 64), (9, 33, 3)])
def test_rows_of_perplexity_depend_on_their_sample_alone(shape: tuple[int, int, int]) -> None:
    inputs = sequences(2, shape)
    assert_rows_depend_on_their_sample_alone("perplexity", inputs, from_logits=True)
    single = {**inputs, "predictions": inputs["predictions"].astype(np.float32)}
    assert_rows_depend_on_their_sample_alone("perplexity", single, from_logits=True, ignore_index=1)


def test_pass_at_k_equals_binomials() -> None:
    drawn = np.array([1, 5, 10, 10, 10, 200, 200, 1000])
    right = np.array([1, 0, 0, 3, 10, 1, 150, 7])
    for k in (1, 2, 5, 10, 100):
        places = drawn >= k
        inputs = {"predictions": right[places], "targets": drawn[places]}
        expected = [
            float(1 - Fraction(comb(int(n - c), k), comb(int(n), k)))
            for c, n in zip(*inputs.values(), strict=True)
        ]
        np.testing.assert_allclose(each_of("pass_at_k", inputs, k=k), expected, rtol=1e-11)
        assert value_of("pass_at_k", inputs, k=k) == pytest.approx(np.mean(expected), rel=1e-12)
        assert_rows_depend_on_their_sample_alone("pass_at_k", inputs, k=k)
    none = {key: np.zeros(0, dtype=np.int64) for key in ("predictions", "targets")}
    assert reason(value_of("pass_at_k", none)) == "there are no problems"


def test_fewer_samples_than_are_tried_or_right_are_refused_where_they_stand(client: Client) -> None:
    inputs = {"predictions": [1, 5, -1], "targets": [2, 4, 9]}
    answer = client.post("/v1/metrics/pass_at_k", json={"inputs": inputs, "params": {"k": 3}})
    assert answer.status_code == 422
    assert [(one["pointer"], one["detail"]) for one in answer.json()["errors"]] == [
        ("/inputs/targets/0", "Expected at least 3 samples, as k says; got 2."),
        ("/inputs/predictions/1", "Expected a number from 0 to 4, that of the samples drawn; got 5."),
        ("/inputs/predictions/2", "Expected a number from 0 to 9, that of the samples drawn; got -1."),
    ]
