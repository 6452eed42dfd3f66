"""The schemas of OpenAPI, made from the types of the JSON that travels."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from service.settings import LIMITS
from service.wire import compose_documents, documents, evaluation_documents, metric_documents
from service.wire.inference import documents as inference

Json = dict[str, Any]
REFERENCE = "#/components/schemas/{model}"
NOT_SHOWN = (
    documents.Options,
    metric_documents.MetricOptions,
    evaluation_documents.SpecOptions,
    compose_documents.CompositionOptions,
)
"""Types whose members stand in other schemas."""
FORMATS = {"number": "double", "integer": "int64"}


def shared_schemas() -> Json:
    """Return the schemas that no single loss owns."""
    found: Json = {}
    for module in (documents, compose_documents, metric_documents, evaluation_documents, inference):
        found |= {schema_name(kind): _schema(kind) for kind in _types(module) if kind not in NOT_SHOWN}
    return {name: found[name] for name in sorted(found)} | {"Limits": _limits()}


def properties(kind: type) -> Json:
    """Return the schemas of a type's members."""
    return _schema(kind)["properties"]


def schema_name(kind: type) -> str:
    """Return the name that a type has in the document.

    >>> schema_name(documents.FaultDocument)
    'Fault'
    """
    return kind.__name__.removesuffix("Document")


def reference(name: str) -> Json:
    """Refer to a schema."""
    return {"$ref": REFERENCE.format(model=name)}


def _types(module: ModuleType) -> Iterator[type]:
    """Yield the types of JSON objects that a module declares."""
    for kind in vars(module).values():
        if is_typeddict(kind) and kind.__module__ == module.__name__:
            yield kind


def _schema(kind: type) -> Json:
    """Return the schema of one type, with references to others."""
    whole = TypeAdapter(kind).json_schema(ref_template=REFERENCE)
    whole.pop("$defs", None)
    return cast(Json, _kept(whole))


def _kept(node: Any) -> Any:
    """Remove redundant titles, and declare the width of numbers."""
    if isinstance(node, list):
        return [_kept(item) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    schema = cast(Json, node)
    kept = {key: _kept(value) for key, value in schema.items() if key != "title" or isinstance(value, dict)}
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].removesuffix("Document")
    # a property may be named type
    if isinstance(kind := kept.get("type"), str) and kind in FORMATS and "enum" not in kept:
        kept["format"] = FORMATS[kind]
    return kept


def _limits() -> Json:
    """Return the schema of the limits, each under its setting's name."""
    limits: Json = {
        name: {"type": kind, "format": FORMATS[kind]}
        for name in LIMITS
        for kind in ["number" if name.endswith("_s") else "integer"]
    }
    return {"type": "object", "properties": limits, "required": list(limits)}
