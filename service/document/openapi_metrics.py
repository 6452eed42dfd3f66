"""The part of the OpenAPI document that describes the metrics."""

from collections.abc import Collection
from functools import cache
from typing import Any

from service.catalogue.dims import split
from service.catalogue.metric import AnyMetric, Listed
from service.catalogue.spec import Input
from service.document.parts import REQUEST_TIMEOUT, name_parameter, operation, parameter, request_schemas
from service.document.schemas import reference
from service.wire import describe_metric
from service.wire.documents import TENSOR
from service.wire.metric_documents import MetricOptions

Json = dict[str, Any]
TAG = "metrics"
LISTED = "A list with one value a sample. A packed tensor may take the place of a list of numbers, also in an object."
TEXTS = "A list of strings, one a sample, may take its place."


def metric_paths(metrics: Collection[AnyMetric]) -> Json:
    """Return the generic paths, and one for each of these metrics."""
    named: Json = {f"/v1/metrics/{metric.name}": {"post": _measure_operation(metric)} for metric in metrics}
    shown = operation("get_metric", "Get one metric", TAG, "MetricEntry")
    return {
        "/v1/metrics": {"get": _list_operation()},
        "/v1/metrics/{name}": {
            "get": {**shown, "parameters": [name_parameter("metric")]},
            "post": _generic_operation(),
        },
        **named,
    }


def metric_schemas(metrics: Collection[AnyMetric]) -> Json:
    """Return the schemas of the requests of these metrics."""
    found: Json = {}
    for metric in metrics:
        found |= _schemas(metric)
    return found


def _measurement(operation_id: str, summary: str, content: Json) -> Json:
    """Describe a measurement of one metric."""
    return {
        **operation(operation_id, summary, TAG, "Measurement", "The value, and the other requested results."),
        "parameters": [parameter(REQUEST_TIMEOUT)],
        "requestBody": {"required": True, "content": {"application/json": content}},
    }


def _stem(metric: AnyMetric) -> str:
    """Return ``MeanIouMetric`` for ``mean_iou``: a loss may have the same name."""
    return "".join(map(str.capitalize, metric.name.split("_"))) + "Metric"


@cache
def _measure_operation(metric: AnyMetric) -> Json:
    """Describe the measurement of one metric."""
    content = {
        "schema": reference(f"{_stem(metric)}Request"),
        "example": describe_metric.metric_example(metric),
    }
    return {
        **_measurement(f"measure_{metric.name}", metric.title, content),
        "description": metric.prose.summary,
        "x-tasks": list(metric.tasks),
    }


def _generic_operation() -> Json:
    """Describe the measurement of the metric named in the path."""
    example = {
        "inputs": {"predictions": [[0.1, 0.9], [0.8, 0.2]], "targets": [1, 0]},
        "interval": 0.95,
    }
    content = {"schema": reference("MetricRequest"), "example": example}
    found = _measurement("measure", "Compute a metric by its name", content)
    found["parameters"] = [name_parameter("metric"), *found["parameters"]]
    found["description"] = "`GET /v1/metrics/{name}` describes the inputs and params of a metric."
    return found


@cache
def _schemas(metric: AnyMetric) -> Json:
    """Return the schemas of one metric's request."""
    descriptions, examples = metric.prose.arguments, describe_metric.metric_example(metric)["inputs"]
    inputs = {
        name: _input(spec, descriptions[name], examples.get(name)) for name, spec in metric.inputs.items()
    }
    return request_schemas(_stem(metric), metric, inputs, MetricOptions)


def _input(spec: Input, description: str, example: Any) -> Json:
    """Describe an input: untyped, with the declaration under ``x-`` keys."""
    first = spec.forms[0]
    kind = "json" if isinstance(spec, Listed) else first.domain.kind
    text = LISTED if isinstance(spec, Listed) else TENSOR
    text = f"{text} {TEXTS}" if spec.texts else text
    return {
        "description": f"{description} {text}",
        **({} if example is None else {"examples": [example]}),
        "x-role": spec.role,
        "x-kind": kind,
        "x-dims": list(split(first.dims)),
    }


def _list_operation() -> Json:
    """Describe the list of metrics."""
    found = operation("list_metrics", "List or search the metrics", TAG, "MetricList")
    texts = {"task": "Only metrics for this task.", "q": "Search words; the best match comes first."}
    found["parameters"] = [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in texts.items()
    ]
    return found
