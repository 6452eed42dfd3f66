"""The OpenAPI document, made from the catalogue and restricted to what client generators handle well.

Tensors are untyped, nothing is a union or recursive, a nullable param is its bare type and not required, numbers are
doubles, and a schema serves requests and responses alike. ``docs/clients.md`` lists the generators that this was tested with.

- An operation has one tag: generators make a class of each, and openapi-generator's Go and TypeScript declare an
  operation with two tags twice. The tasks are in ``x-tasks``.
- No schema has a ``default``: openapi-generator's Go, Java and Python send it with every item of a batch, where it
  overrides the batch's own defaults, and openapi-typescript demands the member. Descriptions name the defaults.
- Beside the 200 there is one ``default`` response. With a response for each status the document is a third larger, and
  openapi-generator's Rust reads every problem as the first of them.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from service import VERSION
from service.catalogue.dims import split
from service.catalogue.metric import AnyMetric
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Input
from service.catalogue.tasks import TASKS
from service.document import openapi_inference
from service.document.openapi_compose import TAG as COMPOSE_TAG
from service.document.openapi_compose import composition_paths
from service.document.openapi_evaluations import TAG as EVALUATIONS_TAG
from service.document.openapi_evaluations import evaluation_paths
from service.document.openapi_metrics import TAG as METRICS_TAG
from service.document.openapi_metrics import metric_paths, metric_schemas
from service.document.parts import (
    REQUEST_TIMEOUT,
    name_parameter,
    open_to_all,
    operation,
    parameter,
    request_schemas,
    responses_of,
)
from service.document.problems import responses
from service.document.schemas import reference, shared_schemas
from service.wire import describe
from service.wire.documents import TENSOR, Options

Json = dict[str, Any]
TAGS = {
    "losses": "Evaluate any loss by its name.",
    "batch": "Evaluate many items in one request.",
    "catalogue": "The losses, their inputs and params.",
    COMPOSE_TAG: "Several losses and expressions over shared inputs: one value, one gradient for each input.",
    METRICS_TAG: "Metrics of predictions: accuracy, F1, mean average precision and many more.",
    EVALUATIONS_TAG: "Metrics over rows from any number of workers, each row counted once.",
    openapi_inference.TAG: "The Open Inference Protocol, for clients of Triton, KServe and MLServer.",
    "operations": "Health, limits and metrics.",
}


def document(losses: Collection[AnyLoss], metrics: Collection[AnyMetric] = ()) -> Json:
    """Return the document with an operation for each of these losses and metrics."""
    paths, schemas = _shared_paths(), shared_schemas() | metric_schemas(metrics)
    paths |= composition_paths() | metric_paths(metrics) | evaluation_paths()
    for loss in losses:
        paths[f"/v1/losses/{loss.name}"] = {"post": _evaluate_operation(loss)}
        schemas |= _request_schemas(loss)
    tasks = sorted({loss.tasks[0] for loss in losses})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lossd",
            "version": VERSION,
            "description": "Loss values, per-element losses and exact gradients over HTTP. With "
            "`?losses=giou,cross_entropy` and `?metrics=f1` this document contains only these losses and metrics, for "
            "small generated clients.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()]
        + [
            {"name": task, "description": f"Losses for {task.replace('_', ' ')}: {TASKS[task]}."}
            for task in tasks
        ],
        "paths": paths,
        # no key is needed if the server has none
        "security": [{}, {"bearer": []}, {"key": []}],
        "components": {
            "schemas": schemas,
            "responses": responses(),
            "parameters": {REQUEST_TIMEOUT: _request_timeout()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def stem(loss: AnyLoss) -> str:
    """Return ``CrossEntropy`` for ``cross_entropy``: the prefix of a loss's schema names."""
    return "".join(map(str.capitalize, loss.name.split("_")))


def _shared_paths() -> Json:
    """Return the paths that are not specific to a loss."""
    return {
        "/v1/losses": {"get": _list_operation()},
        "/v1/losses/{name}": {"get": _show_operation(), "post": _generic_operation()},
        "/v1/batch": {"post": _batch_operation()},
        "/v1/limits": {"get": operation("get_limits", "Limits of this server", "operations", "Limits")},
        "/healthz": {
            "get": open_to_all(operation("healthz", "Whether the process is alive", "operations", "Status"))
        },
        "/readyz": {
            "get": open_to_all(operation("readyz", "Whether the device is warm", "operations", "Status"))
        },
        "/metrics": {"get": _metrics_operation()},
        **openapi_inference.paths(),
    }


def _evaluation(operation_id: str, summary: str, tag: str, content: Json) -> Json:
    """Describe an evaluation of one loss."""
    return {
        **operation(operation_id, summary, tag, "Evaluation", "The value, and the other requested outputs."),
        "parameters": [parameter(REQUEST_TIMEOUT)],
        "requestBody": {"required": True, "content": {"application/json": content}},
    }


@cache
def _evaluate_operation(loss: AnyLoss) -> Json:
    """Describe the evaluation of one loss."""
    content = {"schema": reference(f"{stem(loss)}Request"), "example": describe.example(loss)}
    return {
        **_evaluation(loss.name, loss.title, loss.tasks[0], content),
        "description": f"{loss.prose.summary}{_bounded(loss)}",
        "x-tasks": list(loss.tasks),
    }


def _generic_operation() -> Json:
    """Describe the evaluation of the loss named in the path."""
    example = {"inputs": {"logits": [[2.0, 1.0, 0.1]], "targets": [0]}, "params": {"label_smoothing": 0.1}}
    content = {"schema": reference("EvaluationRequest"), "example": example}
    found = _evaluation("evaluate", "Evaluate a loss by its name", "losses", content)
    found["parameters"] = [name_parameter("loss"), *found["parameters"]]
    found["description"] = (
        "One operation for all losses, for clients that choose one at run time. "
        "`GET /v1/losses/{name}` describes the inputs and params of a loss."
    )
    return found


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
    found = operation(
        "batch", "Evaluate many items", "batch", "BatchResults", "The result of each item, in order."
    )
    # one line of the stream
    found["responses"]["200"]["content"]["application/x-ndjson"] = {"schema": reference("BatchResult")}
    return {
        **found,
        "description": "Items of any losses. Like items are computed together, and a bad one fails alone. With "
        "application/x-ndjson each line is an item and each line of the answer a result, in order; "
        "the result of a bad line has its number in `line`.",
        "parameters": [parameter(REQUEST_TIMEOUT)],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference("BatchRequest"), "example": example},
                "application/x-ndjson": {"schema": reference("BatchItem")},
            },
        },
    }


@cache
def _request_schemas(loss: AnyLoss) -> Json:
    """Return the schemas of one loss's request."""
    descriptions, examples = loss.prose.arguments, describe.example_inputs(loss)
    inputs = {name: _tensor(spec, descriptions[name], examples[name]) for name, spec in loss.inputs.items()}
    return request_schemas(stem(loss), loss, inputs, Options)


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
    found = operation("list_losses", "List or search the losses", "catalogue", "LossList")
    task, words = (
        "Only losses for this task.",
        "Search words, such as class imbalance; the best match comes first.",
    )
    found["parameters"] = [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in (("task", task), ("q", words))
    ]
    return found


def _show_operation() -> Json:
    """Describe the entry of one loss."""
    found = operation("get_loss", "Get one loss", "catalogue", "LossEntry")
    return {**found, "parameters": [name_parameter("loss")]}


def _request_timeout() -> Json:
    """Describe the header that sets a deadline."""
    return {
        "name": "Request-Timeout",
        "in": "header",
        "required": False,
        "description": "Deadline in seconds, after which the answer is a 504. The server's own deadline still applies.",
        "schema": {"type": "number", "format": "double", "exclusiveMinimum": 0},
    }


def _metrics_operation() -> Json:
    """Describe the metrics."""
    found = operation("metrics", "Metrics for Prometheus", "operations", "Status")
    found["responses"] = responses_of(
        "Metrics in Prometheus's text format.", {"text/plain": {"schema": {"type": "string"}}}
    )
    return found
