"""The contract of tangents and hessian, in requests for one loss, in batches and in streams."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from service.losses import CATALOGUE
from service.wire.native import decode
from tests.client import Client

LOGITS = [[2.0, 1.0, 0.1], [0.3, 0.2, 0.9]]
INPUTS = {"logits": LOGITS, "targets": [0, 2]}
TANGENTS = {"logits": [[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]}
RESIDUALS = {"predictions": [0.0, 0.5, 3.0], "targets": [0.0, 0.0, 0.0]}


def cross_entropys_hessian_product() -> Any:
    """Return what the definition gives: diag(p) v - p (p . v), over the number of rows."""
    p = torch.tensor(LOGITS, dtype=torch.float64).softmax(1)
    v = torch.tensor(TANGENTS["logits"], dtype=torch.float64)
    return ((p * v - p * (p * v).sum(1, keepdim=True)) / len(p)).tolist()


def test_tangents_give_the_change_of_the_value_and_of_the_gradients(client: Client) -> None:
    plain = client.evaluate("cross_entropy", inputs=INPUTS, dtype="float64").json()
    body = client.evaluate("cross_entropy", inputs=INPUTS, dtype="float64", tangents=TANGENTS).json()
    gradient = np.array(body["gradients"]["logits"])
    assert body["tangent"] == pytest.approx((gradient * TANGENTS["logits"]).sum(), rel=1e-14)
    np.testing.assert_allclose(
        body["hessian_product"]["logits"], cross_entropys_hessian_product(), rtol=1e-13
    )
    assert {name: body[name] for name in plain} == plain


def test_without_gradients_only_the_value_changes(client: Client) -> None:
    body = client.evaluate(
        "cross_entropy", inputs=INPUTS, tangents=TANGENTS, gradients=False, reduction="none"
    ).json()
    assert "hessian_product" not in body
    assert np.array(body["tangent"]).shape == (2,)
    packed = client.evaluate("cross_entropy", inputs=INPUTS, tangents=TANGENTS, encoding="base64").json()
    assert isinstance(packed["tangent"], float)
    assert packed["hessian_product"]["logits"]["shape"] == [2, 3]


def test_a_diagonal_has_a_number_for_each_element(client: Client) -> None:
    body = client.evaluate("huber", inputs=RESIDUALS, reduction="sum", hessian="diagonal").json()
    assert body["gradients"] == {"predictions": [0, 0.5, 1]}
    assert body["hessian"] == {"predictions": [1, 1, 0]}
    weighted = client.evaluate(
        "huber", inputs=RESIDUALS, hessian="diagonal", sample_weight=[1, 3, 0], grad_output=2.0
    ).json()
    assert weighted["hessian"] == {"predictions": [0.5, 1.5, 0]}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_a_diagonal_keeps_its_digits_where_the_model_is_sure(
    client: Client, target: float, dtype: str
) -> None:
    logits = torch.tensor([-30.0, -15.0, -3.0, 0.0, 3.0, 15.0, 30.0], dtype=torch.float64)
    inputs = {"logits": logits.tolist(), "targets": [target] * len(logits)}
    body = client.evaluate(
        "binary_cross_entropy_with_logits", inputs=inputs, dtype=dtype, reduction="sum", hessian="diagonal"
    ).json()
    expected = torch.sigmoid(logits) * torch.sigmoid(-logits)
    rtol = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(body["hessian"]["logits"], expected.numpy(), rtol=rtol)


@pytest.mark.parametrize("upstream", [None, 3.0])
def test_the_change_of_the_value_does_not_depend_on_the_upstream_gradient(
    client: Client, upstream: float | None
) -> None:
    body = client.evaluate(
        "mse", inputs=RESIDUALS, tangents={"targets": [1, 1, 1]}, divide_by=2.0, grad_output=upstream
    ).json()
    assert body["tangent"] == pytest.approx(-3.5)
    np.testing.assert_allclose(body["hessian_product"]["predictions"], [-(upstream or 1)] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "fields", "pointer", "words"),
    [
        ("mse", {"tangents": {"predictions": [1]}}, "/tangents/predictions", "[3]; got [1]"),
        ("mse", {"tangents": {"x": [1]}}, "/tangents/x", "one of predictions, targets; got 'x'"),
        ("mse", {"tangents": [1]}, "/tangents", "an object"),
        ("mse", {"tangents": {"predictions": [1, "a", 2]}}, "/tangents/predictions/1", 'a number; got "a"'),
        ("mse", {"hessian": "full"}, "/hessian", '"diagonal"; got "full"'),
        ("mse", {"hessian": "diagonal", "gradients": False}, "/hessian", "at least one input; got none"),
        ("rmse", {"hessian": "diagonal"}, "/hessian", "elementwise in predictions"),
        ("zero_one", {"hessian": "diagonal"}, "/hessian", "at least one input; got none"),
        ("zero_one", {"tangents": TANGENTS}, "/tangents/logits", "no tangents"),
        (
            "cross_entropy",
            {"tangents": {"targets": [1, 0]}},
            "/tangents/targets",
            "one of logits; got 'targets'",
        ),
        (
            "cross_entropy",
            {"hessian": "diagonal"},
            "/hessian",
            "logits of [N, C, ...] and a loss of [N, ...]",
        ),
    ],
)
def test_what_has_no_second_derivative_is_refused(
    client: Client, loss: str, fields: Any, pointer: str, words: str
) -> None:
    inputs = INPUTS if "logits" in CATALOGUE[loss].inputs else RESIDUALS
    answer = client.evaluate(loss, inputs=inputs, **fields)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert words in answer.json()["errors"][0]["detail"]


def test_infinite_tangents_are_refused(client: Client) -> None:
    packed = {"dtype": "float32", "shape": [], "data": "AACAfw=="}
    answer = client.evaluate(
        "mse", inputs={"predictions": 1.0, "targets": 0.0}, tangents={"predictions": packed}
    )
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/tangents/predictions"]
    assert "finite" in answer.text


def test_null_and_no_tangents_are_the_same_as_nothing(client: Client) -> None:
    plain = client.evaluate("mse", inputs=RESIDUALS).json()
    for tangents in (None, {}, {"predictions": None}):
        assert client.evaluate("mse", inputs=RESIDUALS, tangents=tangents, hessian=None).json() == plain


def test_like_items_of_batches_and_streams_have_what_they_have_alone(client: Client) -> None:
    items: list[dict[str, Any]] = [
        {"loss": "cross_entropy", "inputs": INPUTS, "tangents": {"logits": [[by, 0, 0], [0, 1, 0]]}}
        for by in range(3)
    ]
    items += [
        {"loss": "huber", "inputs": {**RESIDUALS, "targets": [by] * 3}, "hessian": "diagonal"}
        for by in range(3)
    ]
    items += [{"loss": "cross_entropy", "inputs": INPUTS, "hessian": "diagonal"}]
    batch = client.post("/v1/batch", json={"items": items}).json()["results"]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    answer = client.post("/v1/batch", content=lines, headers={"content-type": "application/x-ndjson"})
    streamed = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["status"] for one in batch] == [one["status"] for one in streamed] == ["ok"] * 6 + ["error"]
    for item, *both in zip(items[:-1], batch, streamed, strict=False):
        fields = {name: value for name, value in item.items() if name != "loss"}
        alone = client.evaluate(item["loss"], **fields).json()
        for one in both:
            assert {"status": "ok", **alone}.keys() == one.keys()
            for name, kind in (("logits", "hessian_product"), ("predictions", "hessian")):
                found, expected = (each[kind][name] if kind in each else 0 for each in (one, alone))
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
            assert one.get("tangent") == pytest.approx(alone.get("tangent"))


def test_defaults_of_a_batch_may_ask_for_diagonals(client: Client) -> None:
    items = [{"loss": "mse", "inputs": RESIDUALS}] * 2
    body = client.post(
        "/v1/batch", json={"items": items, "defaults": {"hessian": "diagonal", "reduction": "sum"}}
    )
    assert [one["hessian"] for one in body.json()["results"]] == [{"predictions": [2, 2, 2]}] * 2


def test_second_derivatives_count_as_more_work() -> None:
    def work(**fields: Any) -> int:
        return decode(CATALOGUE["mse"], json.dumps({"inputs": RESIDUALS, **fields}).encode()).call.work

    tangents = {"tangents": {"predictions": [1, 1, 1]}}
    assert [
        work(**fields) / work()
        for fields in (tangents, {"hessian": "diagonal"}, tangents | {"hessian": "diagonal"})
    ] == [
        13,
        13,
        25,
    ]


def test_an_entry_tells_in_which_inputs_a_loss_is_elementwise(client: Client) -> None:
    entries = {
        name: client.get(f"/v1/losses/{name}").json() for name in ("huber", "cross_entropy", "laplacian")
    }
    assert {name: entry["elementwise"] for name, entry in entries.items()} == {
        "huber": ["predictions", "targets"],
        "cross_entropy": [],
        "laplacian": [],
    }


@pytest.mark.parametrize("name", ["value", "targets"])
def test_a_diagonal_beside_a_wrong_gradient_is_one_fault(client: Client, name: str) -> None:
    answer = client.evaluate("cross_entropy", inputs=INPUTS, gradients=["logits", name], hessian="diagonal")
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/gradients/1"]
