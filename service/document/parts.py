"""Common parts of the operations in the OpenAPI document."""

from typing import Any

from service.catalogue.declaration import AnyDeclaration
from service.document.schemas import properties, reference
from service.wire import describe

Json = dict[str, Any]
REQUEST_TIMEOUT = "RequestTimeout"
PROBLEM = "Problem"


def operation(operation_id: str, summary: str, tag: str, schema: str, answer: str = "") -> Json:
    """Describe an operation without parameters; ``answer`` describes its JSON answer, by default as the summary does."""
    content = {"application/json": {"schema": reference(schema)}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [tag],
        "responses": responses_of(answer or summary, content),
    }


def responses_of(description: str, content: Json, error: str = PROBLEM) -> Json:
    """Describe the 200 and, by the name of a shared response, all errors."""
    return {
        "200": {"description": description, "content": content},
        "default": {"$ref": f"#/components/responses/{error}"},
    }


def parameter(name: str) -> Json:
    """Refer to a shared parameter."""
    return {"$ref": f"#/components/parameters/{name}"}


def name_parameter(kind: str) -> Json:
    """Describe the name of a loss or metric in a path."""
    text = f"A {kind}'s name or alias."
    return {"name": "name", "in": "path", "required": True, "description": text, "schema": {"type": "string"}}


def request_schemas(stem: str, declared: AnyDeclaration, inputs: Json, options: type) -> Json:
    """Return the schemas of the request for a loss or metric: the body, its inputs, its params; ``inputs`` are described."""
    params = describe.without_defaults(describe.params_schema(declared))
    return {
        f"{stem}Inputs": {
            "type": "object",
            "properties": inputs,
            "required": [name for name, spec in declared.inputs.items() if not spec.optional],
            "additionalProperties": False,
        },
        f"{stem}Params": params,
        f"{stem}Request": {
            "type": "object",
            "description": declared.prose.summary,
            "properties": {
                "inputs": reference(f"{stem}Inputs"),
                "params": reference(f"{stem}Params"),
                **properties(options),
            },
            "required": ["inputs", "params"] if "required" in params else ["inputs"],
            "additionalProperties": False,
        },
    }


def open_to_all(described: Json) -> Json:
    """Describe an operation that needs no key."""
    return {**described, "security": []}
