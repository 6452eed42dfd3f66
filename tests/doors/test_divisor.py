"""What a mean is divided by, over HTTP: ``divisor`` in answers, ``divide_by`` in requests, at every door."""

from typing import Any

import orjson
import pytest
import torch

from tests.client import Client
from tests.infer import as_json, infer, outputs

LOGITS = [[2.0, 1.0, 0.1], [0.5, 2.5, 0.3], [0.1, 0.2, 3.0]]
TARGETS = [0, 2, -100]
WEIGHTS = [0.5, 0.25, 1.0]
CALL: dict[str, Any] = {"inputs": {"logits": LOGITS, "targets": TARGETS}, "dtype": "float64"}
MSE: dict[str, Any] = {"inputs": {"predictions": [1.0, 2.0], "targets": [0.0, 0.0]}}
INPUTS = [
    as_json("logits", torch.tensor(LOGITS, dtype=torch.float64)),
    as_json("targets", torch.tensor(TARGETS)),
]


def fault(answer: Any) -> tuple[str, str, str]:
    """Return the only fault of a refused request."""
    assert answer.status_code in (400, 422), answer.text
    [found] = answer.json()["errors"]
    return found["pointer"], found["code"], found["detail"]


@pytest.mark.parametrize("encoding", ["json", "base64"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_divisor_sums_sample_weights_times_the_losses_own(
    client: Client, reduction: str, encoding: str
) -> None:
    options = {"reduction": reduction, "encoding": encoding}
    assert client.evaluate("cross_entropy", **CALL, **options).json()["divisor"] == 2.0
    weighted = client.evaluate("cross_entropy", **CALL, **options, sample_weight=WEIGHTS).json()
    assert weighted["divisor"] == 0.75


def test_a_loss_that_is_not_reduced_has_no_divisor(client: Client) -> None:
    assert "divisor" not in client.evaluate("cross_entropy", **CALL, reduction="none").json()


def test_a_mean_is_divided_by_another_number(client: Client) -> None:
    summed = client.evaluate("cross_entropy", **CALL, reduction="sum", sample_weight=WEIGHTS).json()
    divided = client.evaluate("cross_entropy", **CALL, divide_by=8, sample_weight=WEIGHTS).json()
    assert divided["value"] == summed["value"] / 8
    assert divided["divisor"] == summed["divisor"] == 0.75
    for found, expected in zip(divided["gradients"]["logits"], summed["gradients"]["logits"], strict=True):
        assert found == pytest.approx([number / 8 for number in expected], rel=1e-15)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": {"logits": LOGITS, "targets": [-100] * 3}},
        {"inputs": {"logits": LOGITS, "targets": TARGETS}, "sample_weight": [0, 0, 0]},
    ],
)
def test_an_empty_mean_divided_by_a_number_is_0(client: Client, body: Any) -> None:
    answer = client.evaluate("cross_entropy", **body, divide_by=8).json()
    assert (answer["value"], answer["divisor"]) == (0.0, 0.0)
    assert answer["gradients"]["logits"] == [[0.0] * 3] * 3
    assert client.evaluate("cross_entropy", **body).json()["value"] in (None, 0.0)


def test_a_shard_without_elements_adds_nothing_to_a_mean(client: Client) -> None:
    body = {"inputs": {"predictions": [], "targets": []}}
    answer = client.evaluate("mse", **body, divide_by=8).json()
    assert (answer["value"], answer["divisor"], answer["gradients"]) == (0.0, 0.0, {"predictions": []})
    assert fault(client.evaluate("mse", **body))[1] == "empty"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_count_beyond_a_half_type_is_exact(client: Client, dtype: str) -> None:
    inputs = {
        name: {"dtype": "uint8", "shape": [70_001], "data": "AAAA" * 23333 + "AAA="} for name in ("a", "b")
    }
    answer = client.evaluate(
        "mse", inputs={"predictions": inputs["a"], "targets": inputs["b"]}, dtype=dtype, gradients=False
    )
    assert answer.json()["divisor"] == 70_001


def test_a_divisor_that_overflows_is_counted_as_not_finite(client: Client) -> None:
    answer = client.evaluate("mse", **MSE, sample_weight=[3e38, 3e38], gradients=False).json()
    assert answer["divisor"] is None
    assert answer["nonfinite"]["divisor"] == 1


@pytest.mark.parametrize("number", [0, -1, True, "8", [8], {}])
def test_what_divides_is_a_number_above_0(client: Client, number: Any) -> None:
    where, code, detail = fault(client.evaluate("mse", **MSE, divide_by=number))
    assert (where, code) == ("/divide_by", "value")
    assert detail.startswith("Expected a finite number greater than 0; got ")


def test_only_a_mean_takes_divide_by(client: Client) -> None:
    expected = ("/divide_by", "reduction", "Expected no divide_by under reduction sum; got 8.0.")
    assert fault(client.evaluate("mse", **MSE, divide_by=8, reduction="sum")) == expected
    assert client.evaluate("mse", **MSE, divide_by=None, reduction="sum").json()["value"] == 5.0


@pytest.mark.parametrize(("dtype", "number"), [("float16", 1e39), ("float32", 1e-46)])
def test_what_divides_is_a_number_of_the_arithmetics_dtype(client: Client, dtype: str, number: float) -> None:
    assert fault(client.evaluate("mse", **MSE, dtype=dtype, divide_by=number))[:2] == ("/divide_by", "domain")
    assert client.evaluate("mse", **MSE, dtype="float64", divide_by=number).json()["value"] == 5.0 / number


def items() -> list[dict[str, Any]]:
    """Return items that differ in their options, each three times with other numbers."""
    options: list[dict[str, Any]] = [
        {},
        {"divide_by": 8},
        {"divide_by": 8.5},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"reduction": "sum", "divide_by": 8},
        {"divide_by": 8, "sample_weight": [1, 2]},
    ]
    return [
        {
            "loss": "mse",
            "inputs": {"predictions": [1.5 * place, 2.0], "targets": [0.0, 0.5]},
            "encoding": encoding,
            **option,
        }
        for option in options
        for encoding in ("json", "base64")
        for place in range(3)
    ]


def test_items_and_lines_are_divided_as_alone(client: Client) -> None:
    asked = items()
    alone = [
        client.evaluate("mse", **{k: v for k, v in item.items() if k != "loss"}).json() for item in asked
    ]
    batch = client.post("/v1/batch", json={"items": asked}).json()["results"]
    headers = {"content-type": "application/x-ndjson"}
    lines = client.post("/v1/batch", content=b"\n".join(map(orjson.dumps, asked)), headers=headers)
    for one, item, line in zip(alone, batch, map(orjson.loads, lines.text.splitlines()), strict=True):
        for found in (item, line):
            if "errors" in one:
                assert found["error"]["errors"] == one["errors"]
            else:
                assert {k: v for k, v in found.items() if k != "status"} == one


def test_items_inherit_divide_by(client: Client) -> None:
    asked = [{"loss": "mse", **MSE}, {"loss": "mse", **MSE, "divide_by": 2}]
    body = {"items": asked, "defaults": {"divide_by": 10}}
    assert [one["value"] for one in client.post("/v1/batch", json=body).json()["results"]] == [0.5, 2.5]


@pytest.mark.parametrize(
    ("dtype", "datatype"), [("float64", "FP64"), ("float32", "FP32"), ("float16", "FP32")]
)
def test_a_model_has_the_divisor_as_an_output(client: Client, dtype: str, datatype: str) -> None:
    asked = [{"name": "divisor"}, {"name": "value"}]
    answer = infer(client, "cross_entropy", INPUTS, parameters={"dtype": dtype}, outputs=asked)
    assert answer.json()["outputs"][0] == {
        "name": "divisor",
        "shape": [1],
        "datatype": datatype,
        "data": [2.0],
    }
    assert "divisor" not in outputs(infer(client, "cross_entropy", INPUTS))
    listed = client.get("/v2/models/cross_entropy").json()["outputs"]
    assert "divisor" not in [output["name"] for output in listed]


def test_a_model_takes_divide_by_as_a_parameter(client: Client) -> None:
    plain, divided = (
        outputs(infer(client, "cross_entropy", INPUTS, parameters=parameters))["value"].item()
        for parameters in ({"reduction": "sum"}, {"divide_by": 8})
    )
    assert divided == plain / 8


@pytest.mark.parametrize(
    "parameters", [{"divide_by": 0}, {"divide_by": 8, "reduction": "sum"}, {"divide_by": "8"}]
)
def test_a_model_refuses_a_wrong_divide_by(client: Client, parameters: Any) -> None:
    where = fault(infer(client, "cross_entropy", INPUTS, parameters=parameters))[0]
    assert where == "/parameters/divide_by"


def test_a_model_has_no_divisor_of_a_loss_that_is_not_reduced(client: Client) -> None:
    answer = infer(
        client,
        "cross_entropy",
        INPUTS,
        parameters={"reduction": "none"},
        outputs=[{"name": "value"}, {"name": "divisor"}],
    )
    expected = "Expected reduction mean or sum for the output divisor; got none."
    assert fault(answer) == ("/outputs/1/name", "reduction", expected)
