"""The OpenAPI document: made from the catalogue, and kept to what client generators survive.

So tensors are untyped, nothing is a union or recursive, a nullable param is its bare type and not required,
numbers are doubles, and a schema serves requests and responses alike.
"""

from functools import cache
from typing import Any, get_args

import orjson
from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

from service import VERSION
from service.catalogue.dims import split
from service.catalogue.registry import AnyLoss, Catalogue
from service.catalogue.spec import Input
from service.document import openapi_inference
from service.engine.call import Dtype, Reduction
from service.settings import LIMITS
from service.wire import describe
from service.wire.batch import DEFAULTS
from service.wire.native import Encoding

PATH = "/openapi.json"
Json = dict[str, Any]

TENSOR = (
    "A number, rectangular nested arrays of numbers, or "
    '{"dtype": "float32", "shape": [2, 3], "data": "<base64 of row-major, little-endian bytes>"}.'
)
PROBLEMS = {
    400: "The body is not readable JSON.",
    401: "No key, or one that is not known, where the server has keys.",
    404: "There is no such loss; the detail names the closest.",
    405: "The path does not take this method.",
    408: "The rest of the request did not arrive.",
    413: "The body is over the limit, or the call over the memory of the device.",
    415: "The body is not JSON.",
    422: "The request is readable, but not valid.",
    429: "As much is worked on as is taken at once, or the key is over its limit; Retry-After says when to come back.",
    431: "The request's line and headers are over the limit.",
    500: "A bug of the server.",
    503: "The server cannot answer now.",
    504: "The deadline has passed.",
}


def router(catalogue: Catalogue) -> APIRouter:
    """Return the routes of the document, which is made once and served from memory, and of its page."""
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
    schemas = _shared_schemas() | openapi_inference.schemas()
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
        # none where the server has no keys
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
    """Return ``CrossEntropy`` for ``cross_entropy``: what the names of a loss's schemas begin with."""
    return loss.name.title().replace("_", "")


def _evaluate_operation(loss: AnyLoss) -> Json:
    """Describe the evaluation of one loss."""
    content = {"schema": _ref(f"{stem(loss)}Request"), "example": describe.example(loss)}
    return {
        "operationId": loss.name,
        "summary": loss.title,
        "description": f"{loss.prose.summary}{_bounded(loss)}",
        "tags": list(loss.tasks),
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": _responses("The value, and what else was asked for.", "Evaluation", *PROBLEMS),
    }


def _bounded(loss: AnyLoss) -> str:
    """Say between which numbers the unreduced loss lies, where something is declared."""
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
    responses = _responses("What became of each item, in order.", "BatchResults", *PROBLEMS)
    responses["200"]["content"]["application/x-ndjson"] = {"schema": _ref("BatchResult")}
    return {
        "operationId": "batch",
        "summary": "Evaluate many items",
        "description": "Items of any losses; like ones are computed together, and a bad one fails alone.",
        "tags": ["batch"],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _ref("BatchRequest"), "example": example},
                "application/x-ndjson": {"schema": _ref("BatchItem")},
            },
        },
        "responses": responses,
    }


def _batch_schemas(evaluation: Json) -> Json:
    """Return the schemas of a batch, whose items are requests of any loss."""
    untyped_map = {"type": "object", "additionalProperties": True}
    identity = {"description": "Any string or number, echoed, not necessarily unique."}
    count = {"type": "integer", "format": "int64"}
    options = _options()
    item: Json = {
        "id": identity,
        "loss": {"type": "string", "description": "A loss's name or alias."},
        "inputs": {**untyped_map, "description": "The loss's tensors by name."},
        "params": {**untyped_map, "description": "The loss's params."},
        **options,
    }
    defaults = {name: item[name] for name in DEFAULTS}
    status = {"type": "string", "enum": ["ok", "error"]}
    result: Json = {"id": identity, "status": status, **evaluation, "error": _ref("Problem")}
    mean = {"type": "number", "format": "double"}
    schemas: Json = {
        "BatchItem": {"properties": item, "additionalProperties": False},
        "BatchDefaults": {"properties": defaults, "additionalProperties": False},
        "BatchRequest": {
            "properties": {
                "items": {"type": "array", "items": _ref("BatchItem")},
                "defaults": _ref("BatchDefaults"),
            },
            "required": ["items"],
            "additionalProperties": False,
        },
        "BatchResult": {"properties": result, "required": ["status"]},
        "BatchSummary": {"properties": {"count": count, "mean": mean}, "required": ["count", "mean"]},
        "BatchResults": {
            "properties": {
                "results": {"type": "array", "items": _ref("BatchResult")},
                "succeeded": count,
                "failed": count,
                "summary": {
                    "type": "object",
                    "additionalProperties": _ref("BatchSummary"),
                    "description": "By loss, over its items whose value is a finite number.",
                },
            },
            "required": ["results", "succeeded", "failed", "summary"],
        },
    }
    return {name: {"type": "object", **schema} for name, schema in schemas.items()}


def _request_schemas(loss: AnyLoss) -> Json:
    """Return the schemas of one loss's request: the body, its inputs, its params."""
    name, told, examples = stem(loss), loss.prose.arguments, describe.example_inputs(loss)
    required = [key for key, spec in loss.inputs.items() if not spec.optional]
    params = describe.params_schema(loss)
    return {
        f"{name}Inputs": {
            "type": "object",
            "properties": {key: _tensor(spec, told[key], examples[key]) for key, spec in loss.inputs.items()},
            "required": required,
            "additionalProperties": False,
        },
        f"{name}Params": params,
        f"{name}Request": {
            "type": "object",
            "description": loss.prose.summary,
            "properties": {
                "inputs": _ref(f"{name}Inputs"),
                "params": _ref(f"{name}Params"),
                **_options(),
            },
            "required": ["inputs", "params"] if "required" in params else ["inputs"],
            "additionalProperties": False,
        },
    }


def _tensor(spec: Input, description: str, example: Any) -> Json:
    """Describe an input tensor: untyped, with what the declaration says under ``x-`` keys."""
    first = spec.forms[0]
    return {
        "description": f"{description} {TENSOR}",
        "examples": [example],
        "x-role": spec.role,
        "x-kind": spec.kind,
        "x-dims": list(split(first.dims)),
        "x-domain": first.describe(),
    }


def _options() -> Json:
    """Describe the fields that every request has beside its inputs and params."""
    return {
        "reduction": _choice(Reduction, "mean", "How the unreduced loss becomes the value."),
        "sample_weight": {
            "description": "Finite weights >= 0, one for each element of the unreduced loss or "
            f"broadcastable to it from the left. {TENSOR}",
            "examples": [1.0],
        },
        "gradients": {
            "description": "true: gradients of every prediction input; false: none; a list of input names: "
            "those. The default is true.",
            "examples": [True],
        },
        "grad_output": {
            "description": "Upstream gradient, of the value's shape: gradients become the vector-Jacobian "
            f"product. {TENSOR}",
            "examples": [1.0],
        },
        "dtype": _choice(Dtype, "float32", "What the arithmetic runs in."),
        "encoding": _choice(Encoding, "json", "How tensors come back."),
    }


def _choice(literal: Any, default: str, description: str) -> Json:
    """Describe a field that takes one of a few words."""
    return {
        "type": "string",
        "enum": list(get_args(literal)),
        "default": default,
        "description": description,
    }


def _shared_schemas() -> Json:
    """Return the schemas that no single loss owns."""
    text, names = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    untyped_map = {"type": "object", "additionalProperties": True}
    brief: Json = {
        "name": text,
        "title": text,
        "tasks": names,
        "summary": text,
        "differentiable": {"type": "boolean"},
    }
    details: Json = {
        **brief,
        "aliases": names,
        "formula": {"type": "string", "description": "LaTeX"},
        "inputs": {"type": "array", "items": _ref("InputEntry")},
        "params": {**untyped_map, "description": "The JSON Schema of the params."},
        "unreduced": {**names, "description": "Dimensions of the loss before reduction."},
        "unreduced_forms": {"type": "array", "items": untyped_map},
        "range": _ref("Range"),
        "scales": _ref("Scales"),
        "aux": {**names, "description": "Names of extra outputs."},
        "exact_gradient": {
            "type": "boolean",
            "description": "false: the gradient is, by design, not the derivative of the value.",
        },
        "use_when": text,
        "pitfalls": text,
        "sources": names,
        "example": {**untyped_map, "description": "A request body that runs as it stands."},
    }
    number = {"type": "number", "format": "double"}
    bounds: Json = {
        "least": {**number, "description": "Missing where there is no lower bound."},
        "most": {**number, "description": "Missing where there is no upper bound."},
        "depends_on_params": {
            "type": "boolean",
            "description": "true: the bounds are those for the params of the example.",
        },
    }
    scales: Json = {
        "degree": {
            **number,
            "description": "The loss is factor**degree times itself where the inputs are factor times themselves.",
        },
        "inputs": {**names, "description": "The inputs that are scaled together."},
        "entries": {
            "type": "integer",
            "description": "How many leading entries of the last axis are scaled, where not all are.",
        },
        "along": {**names, "description": "The params that are scaled with the inputs."},
        "params": {**untyped_map, "description": "The params for which this holds."},
    }
    input_entry: Json = {
        "name": text,
        "role": {"type": "string", "enum": ["prediction", "target"]},
        "kind": {"type": "string", "enum": ["float", "int", "bool"]},
        "dims": names,
        "domain": text,
        "optional": {"type": "boolean"},
        "description": text,
        "forms": {"type": "array", "items": untyped_map, "description": "Where there are several."},
    }
    evaluation: Json = {
        "loss": {"type": "string", "description": "The loss's name, also where an alias was asked for."},
        "value": {
            "description": "A number for mean and sum, a tensor for none; null where it is not finite.",
            "examples": [0.4170299470424652],
        },
        "gradients": {**untyped_map, "description": "A tensor for each input differentiated."},
        "aux": {**untyped_map, "description": "Extra named outputs, where the loss has some."},
        "nonfinite": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "How many elements of an output are not finite, where there are any.",
        },
        "reduction": text,
        "dtype": text,
        "device": text,
    }
    fault: Json = {
        "pointer": {"type": "string", "description": "JSON Pointer into the request."},
        "code": text,
        "detail": text,
    }
    problem: Json = {
        "type": text,
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "instance": text,
        "errors": {"type": "array", "items": _ref("Fault")},
    }
    limits: Json = {
        name: {"type": "number", "format": "double"}
        if name.endswith("_s")
        else {"type": "integer", "format": "int64"}
        for name in LIMITS
    }
    optional = {"aux", "nonfinite", "forms", "least", "most", "scales", "entries", "along", "params"}
    shared = {
        name: {
            "type": "object",
            "properties": properties,
            "required": [
                key for key in properties if key not in optional or (name == "LossEntry" and key != "scales")
            ],
        }
        for name, properties in {
            "LossBrief": brief,
            "LossList": {"losses": {"type": "array", "items": _ref("LossBrief")}},
            "LossEntry": details,
            "InputEntry": input_entry,
            "Range": bounds,
            "Scales": scales,
            "Evaluation": evaluation,
            "Limits": limits,
            "Status": {"status": text},
            "Fault": fault,
            "Problem": problem,
        }.items()
    }
    return shared | _batch_schemas(evaluation)


def _list_operation() -> Json:
    """Describe the list of losses."""
    operation = _get("list_losses", "List the losses, or find some", "LossList", "catalogue", 401)
    task, words = (
        "Only losses for this task.",
        "Words to look for, such as class imbalance; the best match comes first.",
    )
    operation["parameters"] = [
        {"name": name, "in": "query", "required": False, "description": told, "schema": {"type": "string"}}
        for name, told in (("task", task), ("q", words))
    ]
    return operation


def _show_operation() -> Json:
    """Describe the entry of one loss."""
    operation = _get("get_loss", "Show all about one loss", "LossEntry", "catalogue", 401, 404)
    told = "A loss's name or alias."
    operation["parameters"] = [
        {"name": "name", "in": "path", "required": True, "description": told, "schema": {"type": "string"}}
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
    """Describe a 200 and the problems that there may be instead."""
    found: Json = {
        "200": {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}
    }
    for status in statuses:
        content = {"application/problem+json": {"schema": _ref("Problem")}}
        found[str(status)] = {"description": PROBLEMS[status], "content": content}
    return found


def _ref(name: str) -> Json:
    """Refer to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}
