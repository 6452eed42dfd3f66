"""The part of the OpenAPI document that describes evaluations."""

from typing import Any

from service.document.parts import REQUEST_TIMEOUT, operation, parameter
from service.document.schemas import reference

Json = dict[str, Any]
TAG = "evaluations"
SPEC: Json = {
    "task": "multiclass",
    "num_classes": 3,
    "columns": {"predictions": "logits", "targets": "label", "id": "image", "slices": ["country"]},
    "metrics": ["accuracy", {"loss": "cross_entropy"}],
}
PART: Json = {
    "image": ["a.png", "b.png"],
    "logits": [[2.0, 1.0, 0.1], [0.2, 0.1, 3.0]],
    "label": [0, 1],
    "country": ["de", "us"],
}


def evaluation_paths() -> Json:
    """Return the paths."""
    one = "/v1/evaluations/{name}"
    return {
        "/v1/evaluations": {"get": _list_operation(), "post": _compute_operation()},
        one: {
            "get": _results_operation(),
            "put": _create_operation(),
            "delete": _delete_operation(),
        },
        f"{one}/parts/{{key}}": {"put": _put_operation()},
        f"{one}/rows": {"get": _rows_operation()},
    }


def _create_operation() -> Json:
    """Describe the creation of an evaluation."""
    found = operation(
        "create_evaluation", "Create an evaluation, unless it is there", TAG, "CreatedEvaluation"
    )
    return {
        **_created(found, "CreatedEvaluation", "The same spec was there."),
        "description": "Every worker may send the same spec. Another spec under the name is a 409 that lists the differences.",
        "parameters": [_name(), parameter(REQUEST_TIMEOUT)],
        "requestBody": _body({"application/json": {"schema": reference("EvaluationSpec"), "example": SPEC}}),
    }


def _put_operation() -> Json:
    """Describe a part."""
    found = operation("put_part", "Store a part of an evaluation", TAG, "StoredPart")
    key = _path("key", "A key that the client chooses, such as the number of a shard.")
    rows: Json = {"type": "string"}
    return {
        **_created(found, "StoredPart", "The same content was there under the key."),
        "description": "It is stored before it is answered, so a retry after any failure is safe. Other content under the "
        "key, or an id with another content, is a 409.",
        "parameters": [_name(), key, parameter(REQUEST_TIMEOUT)],
        "requestBody": _body(
            {
                "application/json": {
                    "schema": {"type": "object", "additionalProperties": True},
                    "example": PART,
                },
                "application/x-ndjson": {"schema": rows},
                "text/csv": {"schema": rows},
            }
        ),
    }


def _results_operation() -> Json:
    """Describe the results."""
    found = operation("get_evaluation", "Compute the results of an evaluation", TAG, "EvaluationResults")
    texts = {
        "metrics": "Names of metrics, separated by commas; all by default.",
        "slices": "Columns of slices, separated by commas; none by default.",
        "against": "The name of another evaluation of this key, to compare with over the ids that both have.",
    }
    numbers = {
        "interval": ("The level of intervals, such as 0.95.", {"type": "number", "format": "double"}),
        "replicates": (
            "Replicates of the bootstrap, 200 by default.",
            {"type": "integer", "format": "int64"},
        ),
        "seed": ("Seed of the bootstrap, 0 by default.", {"type": "integer", "format": "int64"}),
    }
    parameters = [_query(name, text, {"type": "string"}) for name, text in texts.items()]
    parameters += [_query(name, *described) for name, described in numbers.items()]
    return {**found, "parameters": [_name(), *parameters, parameter(REQUEST_TIMEOUT)]}


def _rows_operation() -> Json:
    """Describe the list of rows."""
    found = operation("get_worst_rows", "List the rows with the worst values", TAG, "EvaluationRows")
    worst = {**_query("worst", "The name of a metric.", {"type": "string"}), "required": True}
    limit = _query("limit", "Most rows, 20 by default.", {"type": "integer", "format": "int64"})
    return {**found, "parameters": [_name(), worst, limit, parameter(REQUEST_TIMEOUT)]}


def _list_operation() -> Json:
    """Describe the list of evaluations."""
    found = operation("list_evaluations", "List the evaluations of the key", TAG, "EvaluationList")
    limit = _query("limit", "Most evaluations, 100 by default.", {"type": "integer", "format": "int64"})
    cursor = _query("cursor", "`next` of the page before.", {"type": "string"})
    return {**found, "parameters": [limit, cursor, parameter(REQUEST_TIMEOUT)]}


def _compute_operation() -> Json:
    """Describe an evaluation that is not stored."""
    found = operation("compute_evaluation", "Compute an evaluation of sent data", TAG, "EvaluationResults")
    example = {**SPEC, "data": PART, "interval": 0.95}
    content = {"schema": reference("StatelessEvaluation"), "example": example}
    return {
        **found,
        "parameters": [parameter(REQUEST_TIMEOUT)],
        "requestBody": _body({"application/json": content}),
    }


def _delete_operation() -> Json:
    """Describe the deletion of an evaluation."""
    found = operation("delete_evaluation", "Delete an evaluation and its parts", TAG, "Status")
    responses = {"204": {"description": "It is deleted."}, "default": found["responses"]["default"]}
    return {**found, "responses": responses, "parameters": [_name(), parameter(REQUEST_TIMEOUT)]}


def _created(found: Json, schema: str, same: str) -> Json:
    """Return an operation that answers 201 for what is new, and 200 for what was there."""
    content = {"application/json": {"schema": reference(schema)}}
    there = {"description": same, "content": content}
    new = {"description": "It is new.", "content": content}
    return {**found, "responses": {"200": there, "201": new, "default": found["responses"]["default"]}}


def _body(content: Json) -> Json:
    """Describe a required body."""
    return {"required": True, "content": content}


def _name() -> Json:
    """Describe the name of an evaluation in a path."""
    return _path("name", "1 to 200 letters, digits, '.', '_' or '-'.")


def _path(name: str, text: str) -> Json:
    """Describe a parameter in a path."""
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}


def _query(name: str, text: str, schema: Json) -> Json:
    """Describe a query parameter."""
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
