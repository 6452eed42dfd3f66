"""Catalogue entries of metrics, with an example that runs."""

from functools import cache
from typing import Any

from service.catalogue.metric import AnyMetric, Listed
from service.catalogue.sample import draw_inputs, draw_params
from service.catalogue.spec import Input
from service.wire import describe
from service.wire.listed import schema_of


def brief_metric(metric: AnyMetric) -> dict[str, Any]:
    """Return a metric's entry in the list."""
    return {
        "name": metric.name,
        "title": metric.title,
        "tasks": list(metric.tasks),
        "summary": metric.prose.summary,
        **({} if metric.higher_is_better is None else {"higher_is_better": metric.higher_is_better}),
    }


@cache
def metric_entry(metric: AnyMetric) -> dict[str, Any]:
    """Return the full entry of a metric."""
    prose = metric.prose
    return {
        **brief_metric(metric),
        "aliases": list(metric.aliases),
        "keywords": list(metric.keywords),
        "formula": prose.formula,
        "inputs": [_input(name, spec, prose.arguments[name]) for name, spec in metric.inputs.items()],
        "params": describe.params_schema(metric),
        "likes": list(metric.likes),
        "interval": "analytic" if metric.interval else "bootstrap",
        "per_sample": metric.each is not None,
        "use_when": prose.use_when,
        "pitfalls": prose.pitfalls,
        "sources": list(prose.sources),
        "example": metric_example(metric),
    }


@cache
def metric_example(metric: AnyMetric) -> dict[str, Any]:
    """Return a request body that runs as it is, always the same."""
    params = draw_params(metric)
    changed = {
        name: describe.short(value) for name, value in params.items() if value != metric.params[name].default
    }
    drawn = {name: describe.rounded(tensor) for name, tensor in draw_inputs(metric, params).items()}
    inputs = {**drawn, **metric.example.inputs}
    ordered = {name: inputs[name] for name in metric.inputs if name in inputs}
    return {"inputs": ordered, **({"params": changed} if changed else {})}


def value_schema(spec: Listed) -> dict[str, Any]:
    """Return the JSON Schema of the value of a sample."""
    return schema_of(spec.element)


def _input(name: str, spec: Input, description: str) -> dict[str, Any]:
    """Describe an input; the values of a list by their JSON Schema."""
    found = describe.input_entry(name, spec, description)
    if isinstance(spec, Listed):
        return {**found, "kind": "json", "domain": "one value a sample", "values": value_schema(spec)}
    return found
