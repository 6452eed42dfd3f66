"""The OpenAPI document, made from the catalogue and restricted to what client generators handle well.

So tensors are untyped, nothing is a union or recursive, a nullable param is its bare type and not required,
numbers are doubles, and a schema serves requests and responses alike.
"""

from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

from service import VERSION
from service.catalogue.dims import split
from service.catalogue.registry import AnyLoss, Catalogue
from service.catalogue.spec import Input
from service.document import openapi_inference
from service.document.problems import problems
from service.document.schemas import properties, reference, shared_schemas
from service.wire import describe
from service.wire.documents import TENSOR, Options

PATH = "/openapi.json"
Json = dict[str, Any]


def router(catalogue: Catalogue) -> APIRouter:
    """Return the routes of the document, which is built once and kept in memory, and of its page."""
    routes = APIRouter(include_in_schema=False)
    encoded = cache(lambda: orjson.dumps(document(catalogue)))

    @routes.api_route(PATH, methods=["GET", "HEAD"])
    async def show_document() -> Response:
        return Response(encoded(), media_type="application/json")

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def show_page() -> Response:
        return get_swagger_ui_html(openapi_url=PATH, title="lossd")

    return routes


def document(catalogue: Catalogue) -> Json:
    """Return the whole OpenAPI document."""
    paths: Json = {
        "/v1/losses": {"get": _list_operation()},
        "/v1/losses/{name}": {"get": _show_operation()},
        "/v1/batch": {"post": _batch_operation()},
        "/v1/limits": {"get": _get("get_limits", "Limits of this server", "Limits", "operations", 401)},
        "/healthz": {"get": _open(_get("healthz", "Whether the process is alive", "Status", "operations"))},
        "/readyz": {"get": _open(_get("readyz", "Whether the device is warm", "Status", "operations", 503))},
        "/metrics": {"get": _metrics_operation()},
    }
    paths |= openapi_inference.paths()
    schemas = shared_schemas()
    for loss in catalogue.values():
        paths[f"/v1/losses/{loss.name}"] = {"post": _evaluate_operation(loss)}
        schemas |= _request_schemas(loss)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lossd",
            "version": VERSION,
            "description": "Loss values, per-element losses and exact gradients over HTTP.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted({t for loss in catalogue.values() for t in loss.tasks})]
        + [{"name": name} for name in ("batch", "catalogue", openapi_inference.TAG, "operations")],
        "paths": paths,
        # no key is needed if the server has none
        "security": [{}, {"bearer": []}, {"key": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def stem(loss: AnyLoss) -> str:
    """Return ``CrossEntropy`` for ``cross_entropy``: the prefix of a loss's schema names."""
    return loss.name.title().replace("_", "")


def _evaluate_operation(loss: AnyLoss) -> Json:
    """Describe the evaluation of one loss."""
    content = {"schema": reference(f"{stem(loss)}Request"), "example": describe.example(loss)}
    return {
        "operationId": loss.name,
        "summary": loss.title,
        "description": f"{loss.prose.summary}{_bounded(loss)}",
        "tags": list(loss.tasks),
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": _responses("The value, and the other requested outputs.", "Evaluation", *problems()),
    }


def _bounded(loss: AnyLoss) -> str:
    """Describe the bounds of the unreduced loss, if declared."""
    words = describe.range_in_words(loss)
    return f" The unreduced loss is {words}." if words else ""


def _batch_operation() -> Json:
    """Describe a batch."""
    example = {
        "items": [
            {"id": "a", "loss": "mse", "inputs": {"predictions": [1.0, 2.0], "targets": [0.0, 0.0]}},
            {"id": "b", "loss": "cross_entropy", "inputs": {"logits": [[2.0, 1.0]], "targets": [0]}},
        ],
        "defaults": {"gradients": False},
    }
    responses = _responses("The result of each item, in order.", "BatchResults", *problems())
    responses["200"]["content"]["application/x-ndjson"] = {"schema": reference("BatchResult")}
    return {
        "operationId": "batch",
        "summary": "Evaluate many items",
        "description": "Items of any losses. Like items are computed together, and a bad one fails alone.",
        "tags": ["batch"],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference("BatchRequest"), "example": example},
                "application/x-ndjson": {"schema": reference("BatchItem")},
            },
        },
        "responses": responses,
    }


def _request_schemas(loss: AnyLoss) -> Json:
    """Return the schemas of one loss's request: the body, its inputs, its params."""
    name, descriptions, examples = stem(loss), loss.prose.arguments, describe.example_inputs(loss)
    required = [key for key, spec in loss.inputs.items() if not spec.optional]
    params = describe.params_schema(loss)
    return {
        f"{name}Inputs": {
            "type": "object",
            "properties": {
                key: _tensor(spec, descriptions[key], examples[key]) for key, spec in loss.inputs.items()
            },
            "required": required,
            "additionalProperties": False,
        },
        f"{name}Params": params,
        f"{name}Request": {
            "type": "object",
            "description": loss.prose.summary,
            "properties": {
                "inputs": reference(f"{name}Inputs"),
                "params": reference(f"{name}Params"),
                **properties(Options),
            },
            "required": ["inputs", "params"] if "required" in params else ["inputs"],
            "additionalProperties": False,
        },
    }


def _tensor(spec: Input, description: str, example: Any) -> Json:
    """Describe an input tensor: untyped, with the declaration under ``x-`` keys."""
    first = spec.forms[0]
    return {
        "description": f"{description} {TENSOR}",
        "examples": [example],
        "x-role": spec.role,
        "x-kind": spec.kind,
        "x-dims": list(split(first.dims)),
        "x-domain": first.describe(),
    }


def _list_operation() -> Json:
    """Describe the list of losses."""
    operation = _get("list_losses", "List or search the losses", "LossList", "catalogue", 401)
    task, words = (
        "Only losses for this task.",
        "Search words, such as class imbalance; the best match comes first.",
    )
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "string"},
        }
        for name, description in (("task", task), ("q", words))
    ]
    return operation


def _show_operation() -> Json:
    """Describe the entry of one loss."""
    operation = _get("get_loss", "Get one loss", "LossEntry", "catalogue", 401, 404)
    description = "A loss's name or alias."
    operation["parameters"] = [
        {
            "name": "name",
            "in": "path",
            "required": True,
            "description": description,
            "schema": {"type": "string"},
        }
    ]
    return operation


def _metrics_operation() -> Json:
    """Describe the metrics."""
    operation = _get("metrics", "Metrics for Prometheus", "Status", "operations", 401)
    operation["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return operation


def _open(operation: Json) -> Json:
    """Describe an operation that needs no key."""
    return {**operation, "security": []}


def _get(operation_id: str, summary: str, schema: str, tag: str, *statuses: int) -> Json:
    """Describe a GET without parameters."""
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [tag],
        "responses": _responses(summary, schema, *statuses, 500),
    }


def _responses(description: str, schema: str, *statuses: int) -> Json:
    """Describe a 200 and the problems that are possible instead."""
    found: Json = {
        "200": {"description": description, "content": {"application/json": {"schema": reference(schema)}}}
    }
    for status in statuses:
        content = {"application/problem+json": {"schema": reference("Problem")}}
        found[str(status)] = {"description": problems()[status], "content": content}
    return found
