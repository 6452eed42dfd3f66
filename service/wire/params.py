"""Params on the wire: their pydantic types, their JSON Schema, and their description for messages."""

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, create_model

from service.catalogue.declaration import REQUIRED, AnyDeclaration, Param
from service.catalogue.spec import Values
from service.wire.json import show

CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Items = tuple[Any, ...]
FORMATS = {"number": "double", "integer": "int64"}
BOUNDS = {
    "exclusiveMinimum": "greater than",
    "minimum": "of at least",
    "exclusiveMaximum": "less than",
    "maximum": "of at most",
}


@cache
def params_model(declared: AnyDeclaration) -> type[BaseModel]:
    """Return the model that validates the params of a request; lists are the tuples of `json.plain`."""
    fields: dict[str, Any] = {
        name: (_lenient(param), param.default) for name, param in declared.params.items()
    }
    return create_model("Params", __config__=CONFIG, **fields)


def validated(declared: AnyDeclaration, sent: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the valid params of a request, as the function takes them, and the names of the others."""
    model = params_model(declared)
    try:
        found = model.model_validate(sent)
    except ValidationError as error:
        wrong = list(dict.fromkeys(str(one["loc"][0]) for one in error.errors(include_url=False)))
        return validated(declared, {name: value for name, value in sent.items() if name not in wrong})[
            0
        ], wrong
    return {name: getattr(found, name) for name in sent}, []


def complete(declared: AnyDeclaration, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return all params of a declaration in the order of declaration, and the names of missing ones."""
    if not given and len(declared.defaults) == len(declared.params):
        return declared.defaults, []
    found = {**declared.defaults, **given}
    return {name: found[name] for name in declared.params if name in found}, [
        n for n in declared.params if n not in found
    ]


def levels(param: Param) -> int:
    """Return how deep the lists of a param may be nested, at least one level."""
    return len(param.values.dims.split()) if param.values else 1


def schema(param: Param, description: str) -> dict[str, Any]:
    """Return the JSON Schema of a param: a bare type, or untyped if it takes several.

    A null default, and null itself, are left out, because client generators handle unions badly.
    """
    choices = [_schema(annotation) for annotation in _without_none(param.annotation)]
    found: dict[str, Any] = {**choices[0]} if len(choices) == 1 else {}
    if len(choices) > 1:
        description = f"{description} Takes {wanted(param.annotation)}."
    if param.values:
        found["x-dims"] = param.values.dims.split()
        found["x-domain"] = param.values.domain.describe()
    found["description"] = description
    if param.default is not REQUIRED and param.default is not None:
        found["default"] = param.default
    return found


def wanted(annotation: Any) -> str:
    """Describe the values of a param for messages.

    >>> from annotated_types import Gt
    >>> wanted(Annotated[float, Gt(0)] | None)
    'a number greater than 0, or null'
    """
    words = [_words(_schema(choice)) for choice in _without_none(annotation)]
    return " or ".join(words) + (", or null" if NoneType in _alternatives(annotation) else "")


def _words(found: Mapping[str, Any]) -> str:
    """Describe a JSON Schema in words."""
    if "enum" in found:
        return " or ".join(show(choice) for choice in found["enum"])
    if found.get("type") == "array":
        return f"a list of {_plural(_words(found['items']))}"
    names = {
        "number": "a number",
        "integer": "a 64-bit integer",
        "boolean": "true or false",
        "string": "a string",
    }
    bounds = [f"{words} {found[key]:g}" for key, words in BOUNDS.items() if key in found]
    return " ".join([names[found["type"]], " and ".join(bounds)]).strip()


def _plural(words: str) -> str:
    """Return the plural of a description by `_words`."""
    article, _, noun = words.partition(" ")
    name, _, bounds = noun.partition(" ")
    return f"{name}s {bounds}".strip() if article in ("a", "an") else words


def _schema(annotation: Any) -> dict[str, Any]:
    """Return the JSON Schema of one alternative of a param."""
    adapter = TypeAdapter(annotation, config=None if get_origin(annotation) is Literal else CONFIG)
    found = adapter.json_schema()
    if "enum" not in found and get_origin(annotation) is Literal:
        found = {"enum": list(get_args(annotation)), **{k: v for k, v in found.items() if k == "type"}}
    return _with_formats(found)


def _with_formats(found: dict[str, Any]) -> dict[str, Any]:
    """Declare numbers as doubles and integers as 64-bit, at any depth."""
    if (format := FORMATS.get(found.get("type", ""))) and "enum" not in found:
        return {"type": found["type"], "format": format, **{k: v for k, v in found.items() if k != "type"}}
    if "items" in found:
        return {**found, "items": _with_formats(found["items"])}
    return found


def _without_none(annotation: Any) -> list[Any]:
    """Return the alternatives of a type that are not None."""
    return [choice for choice in _alternatives(annotation) if choice is not NoneType]


def _alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, or the type itself, without metadata for the engine."""
    if get_origin(annotation) in (Union, UnionType):
        return [found for argument in get_args(annotation) for found in _alternatives(argument)]
    if get_origin(annotation) is Annotated and any(isinstance(m, Values) for m in annotation.__metadata__):
        return _alternatives(annotation.__origin__)
    return [annotation]


def _lenient(param: Param) -> Any:
    """Return a param's type for validation, where integers may be written as ``8.0``."""
    kinds = {_schema(choice).get("type") for choice in _without_none(param.annotation)}
    if kinds == {"integer"}:
        return Annotated[param.annotation, BeforeValidator(_whole)]
    return Annotated[param.annotation, of_kinds(int, float)] if param.values else param.annotation


def of_kinds(*kinds: type) -> BeforeValidator:
    """Return a validator that refuses a list with one error; pydantic would report each element."""

    def check(value: Any) -> Any:
        if isinstance(value, tuple) and not _kinds(cast(Items, value)) <= {*kinds}:
            raise ValueError
        return cast(Any, value)

    return BeforeValidator(check)


def _kinds(items: Items) -> set[type]:
    """Return the types of the elements of nested tuples."""
    found = set(map(type, items))
    rows = [cast(Items, row) for row in items if isinstance(row, tuple)] if tuple in found else []
    return (found - {tuple}).union(*map(_kinds, rows))


def _whole(value: Any) -> Any:
    """Return a float without a fraction as an integer.

    Raises:
        ValueError: it is a boolean, or outside 64 bits, with which torch computes.
    """
    # this float may stand for an integer just below 64 bits
    if isinstance(value, bool) or (value == -(2.0**63) and isinstance(value, float)):
        raise ValueError
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(whole, int) and not -(2**63) <= whole < 2**63:
        raise ValueError
    return whole
