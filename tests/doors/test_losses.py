"""The contract of POST /v1/losses/{name}, GET /v1/losses and GET /v1/losses/{name}."""

import base64
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from service.catalogue.registry import AnyLoss
from tests.client import Client
from tests.conformance.cases import every_loss

LOGITS = [[2.0, 1.0, 0.1], [0.3, 0.2, 0.9]]
INPUTS = {"logits": LOGITS, "targets": [0, 2]}
NUMPY = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "int64": "<i8", "uint8": "u1", "bool": "?"}


def packed(values: Any, dtype: str) -> dict[str, Any]:
    array = np.array(values, dtype=NUMPY[dtype])
    return {"dtype": dtype, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def unpacked(tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    raw = base64.b64decode(tensor["data"])
    return np.frombuffer(raw, NUMPY[tensor["dtype"]]).reshape(tensor["shape"])


def test_the_contracts_example(client: Client) -> None:
    answer = client.evaluate("cross_entropy", inputs={"logits": [[2.0, 1.0, 0.1]], "targets": [0]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["loss", "value", "gradients", "divisor", "reduction", "dtype", "device"]
    # to a unit in the last place of float32: torch rounds as the processor lets it
    assert body["value"] == pytest.approx(0.41703001627783, rel=2**-22)
    expected = [[-0.3410, 0.2424, 0.0986]]
    np.testing.assert_allclose(body["gradients"]["logits"], expected, atol=1e-4)
    assert (body["loss"], body["reduction"], body["dtype"]) == ("cross_entropy", "mean", "float32")
    assert body["device"] == "cpu"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_packed_tensors_in_and_out(client: Client, dtype: str) -> None:
    inputs = {"logits": packed(LOGITS, dtype), "targets": packed([0, 2], "int64")}
    body = client.evaluate("cross_entropy", inputs=inputs, dtype=dtype, encoding="base64").json()
    assert isinstance(body["value"], float)
    gradient = body["gradients"]["logits"]
    assert (gradient["dtype"], gradient["shape"]) == (dtype, [2, 3])
    plain = client.evaluate("cross_entropy", inputs=inputs, dtype=dtype).json()
    np.testing.assert_array_equal(
        unpacked(gradient).astype("f8"),
        np.array(plain["gradients"]["logits"]).astype(NUMPY[dtype]).astype("f8"),
    )


def test_bfloat16_carries_its_own_bits(client: Client) -> None:
    inputs = {"predictions": [1.00390625, 2.0], "targets": [0.0, 0.0]}
    body = client.evaluate(
        "mse", inputs=inputs, dtype="bfloat16", encoding="base64", reduction="none", gradients=False
    ).json()
    raw = torch.frombuffer(bytearray(base64.b64decode(body["value"]["data"])), dtype=torch.bfloat16)
    assert (body["value"]["dtype"], raw.tolist()) == ("bfloat16", [1.0, 4.0])


def test_numbers_come_back_with_all_their_digits(client: Client) -> None:
    inputs = {"predictions": [0.1, 1e-300, 123456789.123456789], "targets": [0.0, 0.0, 0.0]}
    for dtype in ("float32", "float64"):
        body = client.evaluate("l1", inputs=inputs, dtype=dtype, reduction="none").json()
        expected = np.array(inputs["predictions"], dtype=dtype)
        np.testing.assert_array_equal(np.array(body["value"], dtype=dtype), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_with_weights_and_upstream_gradients(client: Client, reduction: str) -> None:
    weight = [0.5, 2.0]
    upstream: Any = [3.0, -1.0] if reduction == "none" else 3.0
    body = client.evaluate(
        "cross_entropy",
        inputs=INPUTS,
        reduction=reduction,
        sample_weight=weight,
        grad_output=upstream,
        dtype="float64",
    ).json()
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(logits, torch.tensor([0, 2]), reduction="none") * torch.tensor(weight)
    value = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / 2.5}[reduction]
    (gradient,) = torch.autograd.grad(value, logits, torch.tensor(upstream, dtype=torch.float64))
    np.testing.assert_allclose(body["value"], value.detach(), rtol=1e-12)
    np.testing.assert_allclose(body["gradients"]["logits"], gradient, rtol=1e-12)


def test_weights_broadcast_from_the_left(client: Client) -> None:
    inputs = {"predictions": [[1.0, 2.0], [3.0, 4.0]], "targets": [[0.0, 0.0], [0.0, 0.0]]}
    for weight, expected in (([1, 10], [[1, 4], [90, 160]]), ([[1, 10]], [[1, 40], [9, 160]]), (2, None)):
        body = client.evaluate("mse", inputs=inputs, sample_weight=weight, reduction="none").json()
        assert body["value"] == (expected or [[2, 8], [18, 32]])


def test_gradients_of_named_inputs_only(client: Client) -> None:
    inputs = {"predictions": [1.0], "targets": [3.0]}
    body = client.evaluate("mse", inputs=inputs, gradients=["targets"]).json()
    assert body["gradients"] == {"targets": [4.0]}
    assert client.evaluate("mse", inputs=inputs, gradients=False).json()["gradients"] == {}


def test_a_loss_without_a_useful_gradient(client: Client) -> None:
    assert client.evaluate("zero_one", inputs=INPUTS).json()["gradients"] == {}
    answer = client.evaluate("zero_one", inputs=INPUTS, gradients=["logits"])
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/gradients/0")


def test_non_finite_elements_are_null_and_counted(client: Client) -> None:
    inputs = {"predictions": packed([1.0, np.nan, np.inf], "float32"), "targets": [0.0, 0.0, 0.0]}
    body = client.evaluate("mse", inputs=inputs, reduction="none").json()
    assert body["value"] == [1.0, None, None]
    assert body["nonfinite"] == {"value": 2, "gradients.predictions": 2}
    assert client.evaluate("mse", inputs=inputs).json()["value"] is None
    exact = client.evaluate("mse", inputs=inputs, reduction="none", encoding="base64").json()
    np.testing.assert_array_equal(unpacked(exact["value"]), [1.0, np.nan, np.inf])


def test_a_number_beyond_the_dtype_becomes_infinite(client: Client) -> None:
    inputs = {"predictions": [1e39], "targets": [0.0]}
    body = client.evaluate("l1", inputs=inputs).json()
    assert (body["value"], body["nonfinite"]) == (None, {"value": 1})


def test_what_an_input_means_does_not_follow_from_how_a_number_is_spelled(client: Client) -> None:
    whole = client.evaluate("cross_entropy", inputs=INPUTS).json()
    floats = {"logits": LOGITS, "targets": [0.0, 2.0]}
    assert client.evaluate("cross_entropy", inputs=floats).json() == whole
    booleans = {"logits": [0.5, -0.5], "targets": [True, False]}
    numbers = {"logits": [0.5, -0.5], "targets": [1, 0]}
    loss = "binary_cross_entropy_with_logits"
    assert client.evaluate(loss, inputs=booleans).json() == client.evaluate(loss, inputs=numbers).json()


def test_integers_beyond_64_bits_are_numbers_too(client: Client) -> None:
    body = client.post(
        "/v1/losses/l1",
        content=b'{"inputs": {"predictions": [18446744073709551616], "targets": [0]}, "dtype": "float64"}',
        headers={"content-type": "application/json"},
    )
    assert body.json()["value"] == 2.0**64


def test_an_empty_array_is_the_empty_tensor_of_any_rank(client: Client) -> None:
    empty = {"logits": [], "targets": []}
    body = client.evaluate("cross_entropy", inputs=empty, reduction="none").json()
    assert (body["value"], body["gradients"]) == ([], {"logits": []})
    assert client.evaluate("cross_entropy", inputs=empty, reduction="sum").json()["value"] == 0
    assert client.evaluate("cross_entropy", inputs=empty).status_code == 422


@pytest.mark.parametrize(
    "name", ["BCEWithLogitsLoss", "bce-with-logits", "Binary_Cross_Entropy_With_Logits", "sigmoid_bce"]
)
def test_aliases_and_class_names_resolve(client: Client, name: str) -> None:
    inputs = {"logits": [0.5], "targets": [1]}
    assert client.evaluate(name, inputs=inputs).json()["loss"] == "binary_cross_entropy_with_logits"
    assert client.get(f"/v1/losses/{name}").json()["name"] == "binary_cross_entropy_with_logits"


def test_the_list_can_be_searched(client: Client) -> None:
    every = client.get("/v1/losses").json()["losses"]
    assert {"name", "title", "tasks", "summary", "differentiable"} == every[0].keys()
    assert [loss["name"] for loss in every] == sorted(loss["name"] for loss in every)
    regression = client.get("/v1/losses", params={"task": "regression"}).json()["losses"]
    assert 0 < len(regression) < len(every)
    found = [loss["name"] for loss in client.get("/v1/losses?q=pinball").json()["losses"]]
    assert found == ["quantile", "multi_quantile"]


@every_loss
def test_the_entrys_example_runs_as_it_stands(client: Client, loss: AnyLoss) -> None:
    entry = client.get(f"/v1/losses/{loss.name}").json()
    assert entry["inputs"][0]["dims"] == loss.inputs[entry["inputs"][0]["name"]].forms[0].dims.split()
    answer = client.evaluate(loss.name, **entry["example"])
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json()["value"], float | int)
