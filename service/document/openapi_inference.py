"""The part of the OpenAPI document that describes the Open Inference Protocol: its JSON; bytes only in words."""

from typing import Any

from service.document.parts import REQUEST_TIMEOUT, open_to_all, parameter, responses_of
from service.document.schemas import reference

Json = dict[str, Any]
TAG = "inference"
BINARY = (
    "Tensors may also be sent as raw bytes: little-endian, row-major, one after another after the JSON, whose "
    "length is in Inference-Header-Content-Length; such an input has parameters.binary_data_size instead of data. "
    "Outputs are binary if parameters.binary_data_output, or parameters.binary_data of an output, is true. Bodies "
    "may be in gzip or deflate."
)
TEXT: Json = {"type": "string"}


def paths() -> Json:
    """Return the paths. Those of a model also take ``/versions/1`` behind its name."""
    model = "/v2/models/{model}"
    return {
        "/v2": {"get": _operation("inference_server", "The server and its extensions", "InferenceServer")},
        "/v2/health/live": {
            "get": _health("inference_live", "Whether the process is alive", "InferenceLive")
        },
        "/v2/health/ready": {
            "get": _health("inference_ready", "Whether the device is warm", "InferenceReady")
        },
        "/v2/models": {"get": _operation("list_models", "The names of the models", "InferenceModels")},
        "/v2/models/stats": {
            "get": _operation("list_statistics", "Statistics of all models", "InferenceStatistics")
        },
        model: {"get": _of_model("get_model", "Inputs and outputs of a model", "InferenceModel")},
        f"{model}/ready": {
            "get": _of_model("model_ready", "Whether a model is ready", "InferenceModelReady")
        },
        f"{model}/config": {"get": _of_model("get_config", "A model's configuration", "InferenceConfig")},
        f"{model}/stats": {
            "get": _of_model("get_statistics", "Statistics of a model", "InferenceStatistics")
        },
        f"{model}/infer": {"post": _infer()},
        "/v2/repository/index": {"post": _index()},
        "/v2/repository/models/{model}/load": {
            "post": _of_model("load_model", "Load a model, which is there", "InferenceNothing")
        },
        "/v2/repository/models/{model}/unload": {
            "post": _of_model("unload_model", "Unload a model, which is refused", "InferenceNothing")
        },
    }


def _infer() -> Json:
    """Describe an inference."""
    operation = _of_model("infer", "Evaluate a loss", "InferenceResponse")
    operation["description"] = f"The Open Inference Protocol, for its clients. {BINARY}"
    operation["parameters"].append(parameter(REQUEST_TIMEOUT))
    example = {
        "inputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 1.0, 0.1]},
            {"name": "targets", "datatype": "INT64", "shape": [1], "data": [0]},
        ],
        "outputs": [{"name": "value"}, {"name": "grad.logits"}],
    }
    content = {"application/json": {"schema": reference("InferenceRequest"), "example": example}}
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _index() -> Json:
    """Describe the index, which is a bare array."""
    operation = _operation("repository_index", "All models and their states", "InferenceIndexEntry")
    items = {"type": "array", "items": reference("InferenceIndexEntry")}
    operation["responses"]["200"]["content"]["application/json"]["schema"] = items
    return operation


def _of_model(operation_id: str, summary: str, schema: str) -> Json:
    """Describe an operation on one model."""
    text = "A loss's name or alias."
    name = {"name": "model", "in": "path", "required": True, "description": text, "schema": TEXT}
    return {**_operation(operation_id, summary, schema), "parameters": [name]}


def _health(operation_id: str, summary: str, schema: str) -> Json:
    """Describe an operation that needs no key."""
    return open_to_all(_operation(operation_id, summary, schema))


def _operation(operation_id: str, summary: str, schema: str) -> Json:
    """Describe an operation without parameters."""
    content = {"application/json": {"schema": reference(schema)}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [TAG],
        "responses": responses_of(summary, content, "InferenceError"),
    }
