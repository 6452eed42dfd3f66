"""The part of the OpenAPI document that describes the Open Inference Protocol: its JSON; bytes only in words."""

from collections.abc import Mapping
from typing import Any

from service.wire.inference.datatypes import DATATYPES

Json = dict[str, Any]
TAG = "inference"
ERRORS = {
    400: "The request is not valid; the text names what is wrong.",
    401: "No key, or one that is not known, where the server has keys.",
    404: "There is no such model or version; the text names the closest.",
    405: "The path does not take this method.",
    408: "The rest of the request did not arrive.",
    413: "The body is over the limit, or the call over the memory of the device.",
    415: "The body's coding is not supported.",
    429: "As much is worked on as is taken at once, or the key is over its limit; Retry-After says when to come back.",
    431: "The request's line and headers are over the limit.",
    500: "A bug of the server.",
    503: "The server cannot answer now.",
    504: "The deadline has passed.",
}
BINARY = (
    "Tensors may also travel as raw bytes: little-endian, row-major, one behind the other after the JSON, whose "
    "length Inference-Header-Content-Length tells; such an input has parameters.binary_data_size in place of data. "
    "Outputs come so where parameters.binary_data_output, or parameters.binary_data of an output, is true. Bodies "
    "may be in gzip or deflate."
)
TEXT: Json = {"type": "string"}
TRUTH: Json = {"type": "boolean"}
COUNT: Json = {"type": "integer", "format": "int64"}
MAP: Json = {"type": "object", "additionalProperties": True}


def paths() -> Json:
    """Return the paths. Those of a model also take ``/versions/1`` behind its name."""
    model = "/v2/models/{model}"
    return {
        "/v2": {"get": _operation("inference_server", "The server and its extensions", "InferenceServer")},
        "/v2/health/live": {
            "get": _health("inference_live", "Whether the process is alive", "InferenceLive")
        },
        "/v2/health/ready": {
            "get": _health("inference_ready", "Whether the device is warm", "InferenceReady", 503)
        },
        "/v2/models": {"get": _operation("list_models", "The names of the models", "InferenceModels")},
        "/v2/models/stats": {
            "get": _operation("list_statistics", "What all models have done", "InferenceStatistics")
        },
        model: {"get": _of_model("get_model", "Inputs and outputs of a model", "InferenceModel")},
        f"{model}/ready": {
            "get": _of_model("model_ready", "Whether a model is ready", "InferenceModelReady")
        },
        f"{model}/config": {"get": _of_model("get_config", "A model's configuration", "InferenceConfig")},
        f"{model}/stats": {
            "get": _of_model("get_statistics", "What a model has done", "InferenceStatistics")
        },
        f"{model}/infer": {"post": _infer()},
        "/v2/repository/index": {"post": _index()},
        "/v2/repository/models/{model}/load": {
            "post": _of_model("load_model", "Load a model, which is there", "InferenceNothing")
        },
        "/v2/repository/models/{model}/unload": {
            "post": _of_model("unload_model", "Unload a model, which is refused", "InferenceNothing", 400)
        },
    }


def schemas() -> Json:
    """Return the schemas that the paths refer to."""
    shape = {"type": "array", "items": COUNT}
    datatype = {"type": "string", "enum": list(DATATYPES)}
    numbers: Json = {
        "description": "The numbers, row-major, flat or nested; null stands for NaN.",
        "examples": [[2.0, 1.0, 0.1]],
    }
    described = {"name": TEXT, "datatype": datatype, "shape": shape}
    tensor = {**described, "parameters": MAP, "data": numbers}
    texts = {"type": "array", "items": TEXT}
    described_all = {"type": "array", "items": _ref("InferenceTensor")}
    configured = {"name": TEXT, "data_type": TEXT, "dims": shape, "optional": TRUTH}
    parameters = {
        **MAP,
        "description": "reduction, gradients (a bool, or names with commas between them), dtype, timeout in "
        "microseconds, binary_data_output, and the loss's own params by name, lists as a JSON string.",
    }
    requested = {"name": TEXT, "parameters": MAP}
    found: Mapping[str, tuple[Json, tuple[str, ...]]] = {
        "InferenceServer": ({"name": TEXT, "version": TEXT, "extensions": texts}, ("name", "extensions")),
        "InferenceLive": ({"live": TRUTH}, ("live",)),
        "InferenceReady": ({"ready": TRUTH}, ("ready",)),
        "InferenceModels": ({"models": texts}, ("models",)),
        "InferenceModelReady": ({"name": TEXT, "ready": TRUTH}, ("name", "ready")),
        "InferenceTensor": (described, tuple(described)),
        "InferenceModel": (
            {
                "name": TEXT,
                "versions": texts,
                "platform": TEXT,
                "inputs": described_all,
                "outputs": described_all,
            },
            ("name", "versions", "platform", "inputs", "outputs"),
        ),
        "InferenceConfigTensor": (configured, ("name", "data_type", "dims")),
        "InferenceConfig": (
            {
                "name": TEXT,
                "platform": TEXT,
                "backend": TEXT,
                "max_batch_size": COUNT,
                "input": {"type": "array", "items": _ref("InferenceConfigTensor")},
                "output": {"type": "array", "items": _ref("InferenceConfigTensor")},
            },
            ("name", "platform", "backend", "max_batch_size", "input", "output"),
        ),
        "InferenceStatistics": ({"model_stats": {"type": "array", "items": MAP}}, ("model_stats",)),
        "InferenceIndexEntry": (
            {"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT},
            ("name", "version", "state", "reason"),
        ),
        "InferenceNothing": ({}, ()),
        "InferenceInput": (tensor, ("name", "datatype", "shape")),
        "InferenceRequestedOutput": (requested, ("name",)),
        "InferenceRequest": (
            {
                "id": TEXT,
                "parameters": parameters,
                "inputs": {"type": "array", "items": _ref("InferenceInput")},
                "outputs": {
                    "type": "array",
                    "items": _ref("InferenceRequestedOutput"),
                    "description": "Which outputs to return, in this order: value, grad.<input>, aux.<name>. "
                    "The default is value and aux.*.",
                },
            },
            ("inputs",),
        ),
        "InferenceOutput": (tensor, ("name", "datatype", "shape")),
        "InferenceResponse": (
            {
                "model_name": TEXT,
                "model_version": TEXT,
                "id": TEXT,
                "outputs": {"type": "array", "items": _ref("InferenceOutput")},
            },
            ("model_name", "model_version", "outputs"),
        ),
        "InferenceError": (
            {
                "error": {"type": "string", "description": "All that is wrong, in one text."},
                "type": TEXT,
                "title": TEXT,
                "status": {"type": "integer"},
                "detail": TEXT,
                "instance": TEXT,
                "errors": {"type": "array", "items": _ref("Fault")},
            },
            ("error", "type", "title", "status", "detail", "instance", "errors"),
        ),
    }
    return {
        name: {
            "type": "object",
            "properties": properties,
            **({"required": list(required)} if required else {}),
        }
        for name, (properties, required) in found.items()
    }


def _infer() -> Json:
    """Describe an inference."""
    operation = _of_model("infer", "Evaluate a loss", "InferenceResponse", *ERRORS)
    operation["description"] = f"The Open Inference Protocol, for its clients. {BINARY}"
    example = {
        "inputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 1.0, 0.1]},
            {"name": "targets", "datatype": "INT64", "shape": [1], "data": [0]},
        ],
        "outputs": [{"name": "value"}, {"name": "grad.logits"}],
    }
    content = {"application/json": {"schema": _ref("InferenceRequest"), "example": example}}
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _index() -> Json:
    """Describe the index, which is a bare array."""
    operation = _operation("repository_index", "All models and their states", "InferenceIndexEntry")
    items = {"type": "array", "items": _ref("InferenceIndexEntry")}
    operation["responses"]["200"]["content"]["application/json"]["schema"] = items
    return operation


def _of_model(operation_id: str, summary: str, schema: str, *statuses: int) -> Json:
    """Describe an operation on one model."""
    operation = _operation(
        operation_id, summary, schema, *(statuses if 404 in statuses else (*statuses, 404))
    )
    told = "A loss's name or alias."
    operation["parameters"] = [
        {"name": "model", "in": "path", "required": True, "description": told, "schema": TEXT}
    ]
    return operation


def _health(operation_id: str, summary: str, schema: str, *statuses: int) -> Json:
    """Describe an operation that needs no key."""
    operation = _operation(operation_id, summary, schema, *statuses)
    del operation["responses"]["401"]
    return {**operation, "security": []}


def _operation(operation_id: str, summary: str, schema: str, *statuses: int) -> Json:
    """Describe an operation without parameters."""
    responses: Json = {"200": _answer(summary, schema)}
    for status in sorted({*statuses, 401, 500}):
        responses[str(status)] = _answer(ERRORS[status], "InferenceError")
    return {"operationId": operation_id, "summary": summary, "tags": [TAG], "responses": responses}


def _answer(description: str, schema: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
