"""Lists with one JSON value a sample: texts, tags, the objects in an image, values of slices."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, cast

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from service.problems import MOST_FAULTS, Fault, Invalid, pointer
from service.wire import json
from service.wire.document import LONGEST_LISTED
from service.wire.text import Span, unreadable

MOST_SAMPLES = 1 << 21
"""Most values of a list."""
FIRST_TEXT = re.compile(rb'\[[ \t\r\n]*"')
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def read_listed(value: Any, element: Any, *where: str | int) -> list[Any]:
    """Read a list whose elements are of a Python type.

    Raises:
        Invalid: it is no list, too long, or has elements of another type.
        Unreadable: a part of it that is parsed only here is not JSON.
    """
    if not json.is_array(value):
        detail = f"Expected a list with one value a sample; got {json.show(value)}."
        raise Invalid(Fault(pointer(*where), "type", detail))
    found: list[Any] = []
    for some in _runs(value, where):
        found += some
        if len(found) > MOST_SAMPLES:
            raise Invalid(
                Fault(pointer(*where), "size", f"Expected at most {MOST_SAMPLES} values; got more.")
            )
    try:
        return _adapter(element).validate_python(found)
    except ValidationError as error:
        raise Invalid(*_faults(error, found, where)) from None


def begins_with_text(value: Any) -> bool:
    """Return whether the first element of an array is a string."""
    if isinstance(value, Span):
        return FIRST_TEXT.match(value.body, value.start) is not None
    return json.is_array(value) and isinstance(next(iter(value), None), str)


def _runs(value: Any, where: tuple[str | int, ...]) -> Iterator[list[Any]]:
    """Yield the elements of an array as Python values, a run at a time."""
    if not isinstance(value, Span):
        yield value.as_list()
        return
    view = memoryview(value.body)
    for start, end in value.runs():
        if end - start > LONGEST_LISTED:
            detail = f"Expected values of at most {LONGEST_LISTED} bytes; got {end - start}."
            raise Invalid(Fault(pointer(*where), "size", detail))
        try:
            yield orjson.loads(b"[%b]" % bytes(view[start:end]))
        except orjson.JSONDecodeError as error:
            place = start + len(error.doc[: error.pos].encode()) - 1
            raise unreadable(value.body, error.msg, place) from None


@cache
def _adapter(element: Any) -> TypeAdapter[list[Any]]:
    """Return the validator of a list."""
    listed: Any = list.__class_getitem__(element)
    return TypeAdapter(listed, config=STRICT)


def schema_of(element: Any) -> dict[str, Any]:
    """Return the JSON Schema of a list's values, without references."""
    schema = _adapter(element).json_schema()
    return _resolved(schema["items"], schema.get("$defs", {}))


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with definitions in place of references to them, and without titles."""
    if isinstance(node, list):
        return [_resolved(one, definitions) for one in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    found = cast(dict[str, Any], node)
    if "$ref" in found:
        return _resolved(definitions[found["$ref"].rpartition("/")[2]], definitions)
    # a title is a text; a member of that name is a schema
    return {
        name: _resolved(one, definitions)
        for name, one in found.items()
        if name != "title" or isinstance(one, dict)
    }


def _faults(error: ValidationError, found: list[Any], where: tuple[str | int, ...]) -> list[Fault]:
    """Return a fault for each place, with the types that it could have had."""
    expected: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for one in error.errors(include_url=False):
        at = pointer(*where, *_place(one["loc"], found))
        words, shown[at] = _words(one)
        expected.setdefault(at, []).append(words)
        if len(expected) >= MOST_FAULTS:
            break
    return [
        Fault(at, "value", f"Expected {' or '.join(dict.fromkeys(words))}; got {shown[at]}.")
        for at, words in expected.items()
    ]


def _words(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an error expected, and what it got."""
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "a value", "nothing"
        case "extra_forbidden":
            return "no member of this name", json.show(_shown(value))
        case "too_short" | "too_long":
            bound = (
                f"at least {context['min_length']}"
                if "min_length" in context
                else f"at most {context['max_length']}"
            )
            return f"{bound} values", str(context["actual_length"])
        case _:
            words = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            words = words.replace("a valid integer", "an integer").replace("a valid ", "a ")
            words = words.replace("a dictionary", "an object")
            return words, json.show(_shown(value))


def _place(location: tuple[int | str, ...], found: Any) -> list[str | int]:
    """Return the part of a location that leads into the value; pydantic adds the names of union members."""
    place: list[str | int] = []
    for step in location:
        if isinstance(found, list) and isinstance(step, int) and step < len(cast(list[Any], found)):
            found = cast(list[Any], found)[step]
        elif isinstance(found, dict) and step in found:
            found = cast(dict[Any, Any], found)[step]
        elif not isinstance(found, dict):
            continue
        place.append(step)
    return place


def _shown(value: Any) -> Any:
    """Return a value that can be shown: containers as a short text of themselves."""
    if isinstance(value, list):
        return cast(list[Any], value)[:8]
    return list(cast(dict[str, Any], value))[:8] if isinstance(value, dict) else value
