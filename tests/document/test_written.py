"""Answers match the OpenAPI document: each is checked against its schema, with no other members."""

from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator, ValidationError

from service.catalogue.registry import AnyLoss
from service.document.openapi import document
from service.losses import CATALOGUE
from service.metrics import METRICS
from tests.client import Client
from tests.conformance.cases import every_loss

SCHEMAS: dict[str, Any] = orjson.loads(orjson.dumps(document(CATALOGUE.values(), METRICS.values())))[
    "components"
]["schemas"]
MSE: dict[str, Any] = {"inputs": {"predictions": [1.0, 2.0], "targets": [0.0, 0.0]}}
GIOU: dict[str, Any] = {"inputs": {"boxes": [[0, 0, 1, 1.0]], "targets": [[0, 0, 2, 2.0]]}}
INFER: dict[str, Any] = {
    "id": "a",
    "inputs": [
        {"name": "predictions", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]},
        {"name": "targets", "datatype": "FP32", "shape": [2], "data": [0.0, 0.0]},
    ],
}


def is_written_as(name: str, answer: Any) -> None:
    """Assert that an answer has the members that its schema says, and no others."""
    closed = {key: {"additionalProperties": False, **schema} for key, schema in SCHEMAS.items()}
    root = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": closed}}
    Draft202012Validator(root).validate(answer)


def test_a_member_that_no_schema_has_is_noticed() -> None:
    with pytest.raises(ValidationError, match="surplus"):
        is_written_as("Status", {"status": "alive", "surplus": 1})


@every_loss
def test_the_entry_of_a_loss_is_written_as_the_document_says(client: Client, loss: AnyLoss) -> None:
    is_written_as("LossEntry", client.get(f"/v1/losses/{loss.name}").json())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/losses", "LossList"),
        ("/v1/limits", "Limits"),
        ("/healthz", "Status"),
        ("/readyz", "Problem"),
        ("/v1/losses/nothing", "Problem"),
        ("/nothing", "Problem"),
        ("/v2", "InferenceServer"),
        ("/v2/health/live", "InferenceLive"),
        ("/v2/models", "InferenceModels"),
        ("/v2/models/stats", "InferenceStatistics"),
        ("/v2/models/giou", "InferenceModel"),
        ("/v2/models/giou/ready", "InferenceModelReady"),
        ("/v2/models/giou/config", "InferenceConfig"),
        ("/v2/models/giou/stats", "InferenceStatistics"),
        ("/v2/models/nothing", "InferenceError"),
    ],
)
def test_what_is_read_is_written_as_the_document_says(client: Client, path: str, name: str) -> None:
    is_written_as(name, client.get(path).json())


@pytest.mark.parametrize(
    ("loss", "body"),
    [
        ("mse", MSE),
        ("mse", {**MSE, "reduction": "none", "encoding": "base64"}),
        ("mse", {"inputs": {"predictions": [1e300], "targets": [-1e300]}}),
        ("giou", GIOU),
    ],
)
def test_an_evaluation_is_written_as_the_document_says(client: Client, loss: str, body: Any) -> None:
    is_written_as("Evaluation", client.evaluate(loss, **body).json())


@pytest.mark.parametrize("body", [{}, {**MSE, "reduction": "median"}, {**MSE, "surplus": 1}])
def test_what_is_refused_is_written_as_the_document_says(client: Client, body: Any) -> None:
    is_written_as("Problem", client.evaluate("mse", **body).json())
    is_written_as("InferenceError", client.post("/v2/models/mse/infer", json=body).json())


def test_a_batch_and_a_stream_are_written_as_the_document_says(client: Client) -> None:
    items = [
        {"id": 1, "loss": "mse", **MSE},
        {"id": "two", "loss": "mse", **MSE, "reduction": "none"},
        {"loss": "giou", **GIOU},
        {"loss": "nothing"},
        {"loss": "mse"},
    ]
    is_written_as("BatchResults", client.post("/v1/batch", json={"items": items}).json())
    lines = b"\n".join([*map(orjson.dumps, items), b"{"])
    headers = {"content-type": "application/x-ndjson"}
    answer = client.post("/v1/batch", content=lines, headers=headers)
    written = answer.text.splitlines()
    assert len(written) == len(items) + 1
    for line in written:
        is_written_as("BatchResult", orjson.loads(line))


def test_an_inference_is_written_as_the_document_says(client: Client) -> None:
    is_written_as("InferenceResponse", client.post("/v2/models/mse/infer", json=INFER).json())
    index = client.post("/v2/repository/index").json()
    assert len(index) == len(CATALOGUE)
    for entry in index:
        is_written_as("InferenceIndexEntry", entry)
