"""The OpenAPI document: committed as it is served, valid, and free of constructs that break client generators."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from openapi_spec_validator import validate

from service.admission import keys
from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.document.openapi import document, stem
from service.losses import CATALOGUE
from service.settings import Settings
from tests.client import Client
from tests.conformance.cases import every_loss

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"
DOCUMENT = orjson.loads(orjson.dumps(document(CATALOGUE)))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def test_the_committed_document_is_the_one_served(client: Client) -> None:
    assert orjson.loads(COMMITTED.read_bytes()) == DOCUMENT, "run `make openapi`"
    assert client.get("/openapi.json").json() == DOCUMENT


def test_it_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_it_has_no_unions_and_no_recursion() -> None:
    for node in _objects(DOCUMENT["components"]):
        assert not node.keys() & {"anyOf", "oneOf", "allOf", "not"}, node
        assert not isinstance(node.get("type"), list), node
        assert not isinstance(node.get("default"), dict), node
        if node.get("type") == "number":
            assert node["format"] == "double"
    for name in SCHEMAS:
        assert name not in _reachable(name), f"{name} refers to itself"


def test_every_error_is_declared_in_the_form_of_its_door() -> None:
    for path, operations in DOCUMENT["paths"].items():
        form = (
            ("application/json", "InferenceError")
            if path.startswith("/v2")
            else ("application/problem+json", "Problem")
        )
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status != "200":
                    [(media, content)] = answer["content"].items()
                    assert (media, content["schema"]["$ref"].rpartition("/")[2]) == form


def test_a_key_is_asked_for_wherever_it_is_declared_and_nowhere_else(tmp_path: Path) -> None:
    keys.new(tmp_path / "keys", "ci")
    guarded = Client(create_app(Settings(device="cpu", api_keys_file=tmp_path / "keys")))
    paths = [path for path in DOCUMENT["paths"] if "losses/" not in path] + ["/v1/losses/mse"]
    for path in paths:
        for method, operation in DOCUMENT["paths"][path].items():
            answer = guarded.request(method.upper(), path.replace("{model}", "mse"))
            declared = "401" in operation["responses"]
            assert declared == (answer.status_code == 401) == (operation.get("security") != []), path


def test_work_may_be_told_that_it_stalled_or_has_too_many_headers() -> None:
    for path, operations in DOCUMENT["paths"].items():
        if "requestBody" in operations.get("post", {}):
            assert {"408", "413", "429", "431", "503", "504"} <= operations["post"]["responses"].keys(), path


def test_the_paths_of_the_inference_protocol_are_there(client: Client) -> None:
    for path, operations in DOCUMENT["paths"].items():
        if path.startswith("/v2"):
            for method in operations:
                answer = client.request(method.upper(), path.replace("{model}", "mse"))
                assert answer.status_code not in (404, 405), path


def test_the_example_of_the_inference_protocol_is_answered(client: Client) -> None:
    body = DOCUMENT["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    answer = client.post("/v2/models/cross_entropy/infer", json=body["example"])
    assert [output["name"] for output in answer.json()["outputs"]] == ["value", "grad.logits"]


@every_loss
def test_each_request_is_spelled_out(loss: AnyLoss) -> None:
    name = stem(loss)
    inputs, params = SCHEMAS[f"{name}Inputs"], SCHEMAS[f"{name}Params"]
    assert set(inputs["properties"]) == set(loss.inputs)
    assert set(params["properties"]) == set(loss.params)
    for key, schema in inputs["properties"].items():
        assert "type" not in schema
        assert schema["description"].startswith(loss.prose.arguments[key])
        assert {"examples", "x-role", "x-dims", "x-kind", "x-domain"} <= schema.keys()
    operation = DOCUMENT["paths"][f"/v1/losses/{loss.name}"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == f"#/components/schemas/{name}Request"


@every_loss
def test_the_examples_of_all_inputs_make_a_request(client: Client, loss: AnyLoss) -> None:
    operation = DOCUMENT["paths"][f"/v1/losses/{loss.name}"]["post"]
    params = operation["requestBody"]["content"]["application/json"]["example"].get("params", {})
    properties = SCHEMAS[f"{stem(loss)}Inputs"]["properties"]
    inputs = {name: schema["examples"][0] for name, schema in properties.items()}
    answer = client.evaluate(loss.name, inputs=inputs, params=params)
    assert answer.status_code == 200, answer.text


@every_loss
def test_each_example_is_answered(client: Client, loss: AnyLoss) -> None:
    operation = DOCUMENT["paths"][f"/v1/losses/{loss.name}"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    answer = client.evaluate(loss.name, **example)
    assert answer.status_code == 200, answer.text


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object in a document, except in examples."""
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key not in ("example", "examples", "properties"):
                yield from _objects(value)
        for value in node.get("properties", {}).values():
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)


def _reachable(name: str) -> set[str]:
    """Return the schemas that a schema refers to, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for node in _objects(SCHEMAS[waiting.pop()]):
            reference = str(node.get("$ref", "")).rpartition("/")[2]
            if reference and reference not in found:
                found.add(reference)
                waiting.append(reference)
    return found
