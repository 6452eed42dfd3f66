"""The OpenAPI document: committed as it is served, valid, and free of constructs that break client generators."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate

from service.admission import keys
from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.document.openapi import document, stem
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.problems import Problem
from service.settings import Settings
from service.wire import tensors
from tests.client import Client
from tests.conformance.cases import every_loss

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"
DOCUMENT = orjson.loads(orjson.dumps(document(CATALOGUE.values(), METRICS.values())))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS: list[Any] = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
GOOD = {"create_evaluation": ["200", "201"], "put_part": ["200", "201"], "delete_evaluation": ["204"]}
"""Good answers of operations that have others than a 200."""


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


def test_no_schema_has_a_default_which_generated_clients_would_send() -> None:
    for node in _objects(DOCUMENT["components"]):
        assert "default" not in node, node
    told = [p["description"] for n, p in SCHEMAS["CrossEntropyParams"]["properties"].items() if n != "weight"]
    assert any(description.endswith("The default is 0.0.") for description in told)


def test_every_operation_has_one_tag_and_each_loss_its_tasks() -> None:
    names = [tag["name"] for tag in DOCUMENT["tags"]]
    used = [tag for operation in OPERATIONS for tag in operation["tags"]]
    assert all(len(operation["tags"]) == 1 for operation in OPERATIONS)
    assert set(used) == set(names)
    for loss in CATALOGUE.values():
        operation = DOCUMENT["paths"][f"/v1/losses/{loss.name}"]["post"]
        assert operation["x-tasks"] == list(loss.tasks)
        assert operation["tags"] == operation["x-tasks"][:1]


def test_names_of_schemas_differ_in_more_than_case_and_keep_to_one_casing() -> None:
    assert len({name.lower() for name in SCHEMAS}) == len(SCHEMAS)
    assert "Wasserstein1dRequest" in SCHEMAS
    for name in SCHEMAS:
        assert re.fullmatch(r"([A-Z][a-z0-9]*)+", name), name
        assert not re.search(r"\d[A-Z]$", name), name


def test_beside_the_200_there_is_one_answer_in_the_form_of_the_door() -> None:
    for path, operations in DOCUMENT["paths"].items():
        form = "InferenceError" if path.startswith("/v2") else "Problem"
        for operation in operations.values():
            *good, error = operation["responses"]
            assert (good, error) == (GOOD.get(operation["operationId"], ["200"]), "default")
            assert operation["responses"]["default"] == {"$ref": f"#/components/responses/{form}"}
    for form, media in (("InferenceError", "application/json"), ("Problem", "application/problem+json")):
        content = DOCUMENT["components"]["responses"][form]["content"]
        assert content == {media: {"schema": {"$ref": f"#/components/schemas/{form}"}}}


def test_the_problem_tells_every_status() -> None:
    told = DOCUMENT["components"]["responses"]["Problem"]["description"]
    assert {f"\n- {kind.status}: " in told for kind in Problem.__subclasses__()} == {True}


def test_a_key_is_asked_for_wherever_it_is_declared_and_nowhere_else(tmp_path: Path) -> None:
    keys.new(tmp_path / "keys", "ci")
    guarded = Client(create_app(Settings(device="cpu", api_keys_file=tmp_path / "keys")))
    paths = [path for path in DOCUMENT["paths"] if "losses/" not in path] + ["/v1/losses/mse"]
    for path in paths:
        for method, operation in DOCUMENT["paths"][path].items():
            answer = guarded.request(method.upper(), path.replace("{model}", "mse"))
            assert (answer.status_code == 401) == (operation.get("security") != []), path


def test_any_loss_can_be_evaluated_by_one_operation(client: Client) -> None:
    operation = DOCUMENT["paths"]["/v1/losses/{name}"]["post"]
    [content] = operation["requestBody"]["content"].values()
    assert content["schema"]["$ref"].endswith("/EvaluationRequest")
    assert client.evaluate("cross_entropy", **content["example"]).status_code == 200


def test_whatever_evaluates_takes_a_deadline() -> None:
    timeout = {"$ref": "#/components/parameters/RequestTimeout"}
    for operation in OPERATIONS:
        works = "requestBody" in operation or operation["tags"] == ["evaluations"]
        assert (timeout in operation.get("parameters", [])) == works


def test_a_packed_tensor_has_a_schema_with_the_dtypes_that_are_read() -> None:
    packed = SCHEMAS["PackedTensor"]
    assert packed["properties"]["dtype"]["enum"] == list(tensors.DTYPES)
    assert packed["required"] == list(tensors.PACKED)


def test_a_document_of_some_losses_has_what_all_have_in_common(client: Client) -> None:
    some = client.get("/openapi.json", params={"losses": "giou, BCEWithLogitsLoss,giou"}).json()
    none = client.get("/openapi.json?losses=").json()
    spelled_out = {f"/v1/losses/{name}" for name in CATALOGUE} | {f"/v1/metrics/{name}" for name in METRICS}
    assert none["paths"].keys() == DOCUMENT["paths"].keys() - spelled_out
    chosen = {"giou", "binary_cross_entropy_with_logits"}
    assert some["paths"].keys() - none["paths"].keys() == {f"/v1/losses/{name}" for name in chosen}
    for found in (some, none):
        validate(found)
        used = {tag for path in found["paths"].values() for one in path.values() for tag in one["tags"]}
        assert used == {tag["name"] for tag in found["tags"]}
        for name, schema in found["components"]["schemas"].items():
            assert schema == SCHEMAS[name]
    assert len(orjson.dumps(none)) < 70_000
    measured = client.get("/openapi.json?metrics=accuracy").json()
    assert measured["paths"].keys() - none["paths"].keys() == {"/v1/metrics/accuracy"}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("losses=giou,hubber", "Expected the name of a loss, such as huber"),
        ("loss=giou", "Expected one of the query parameters losses, metrics; got 'loss'."),
        ("losses=giou&losses=mse", "Expected the parameter once; got it 2 times."),
    ],
)
def test_a_document_of_what_is_not_there_is_refused(client: Client, query: str, sentence: str) -> None:
    answer = client.get(f"/openapi.json?{query}")
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["detail"].startswith(sentence)


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi.json?losses=giou"])
def test_it_comes_in_gzip_and_not_again_to_who_has_it(client: Client, path: str) -> None:
    plain = client.get(path, headers={"accept-encoding": "identity"})
    coded = client.get(path, headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert coded.headers["content-encoding"] == "gzip"
    assert int(coded.headers["content-length"]) < len(plain.content) / 4
    assert coded.json() == plain.json()
    assert {plain.headers["vary"], coded.headers["vary"]} == {"Accept-Encoding"}
    tags = [plain.headers["etag"], coded.headers["etag"]]
    assert len(set(tags)) == 2
    for tag in (*tags, f'"x", {tags[0]}', f"W/{tags[1]}", "*"):
        again = client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] in tags
    assert client.get(path, headers={"if-none-match": '"x"'}).status_code == 200


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
    ids = [operation["operationId"] for operation in OPERATIONS]
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
