"""Common parts of the operations in the OpenAPI document."""

from typing import Any

from service.document.schemas import reference

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


def open_to_all(described: Json) -> Json:
    """Describe an operation that needs no key."""
    return {**described, "security": []}
