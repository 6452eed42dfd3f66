"""Lists with one JSON value a sample: texts, tags, the objects in an image, values of slices."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, cast

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from service.problems import MOST_FAULTS, Fault, Invalid, pointer
from service.wire import json, tensors
from service.wire.document import LONGEST_LISTED, Document
from service.wire.text import Span, unreadable

MOST_SAMPLES = 1 << 21
"""Most values of a list."""
FIRST_TEXT = re.compile(rb'\[[ \t\r\n]*"')
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
EXACT = 2.0**53
"""Floats without a fraction below this are integers; beyond, they may stand for another one."""


def read_listed(document: Document, value: Any, element: Any, *where: str | int) -> list[Any]:
    """Read a list whose elements are of a Python type. A packed tensor may take the place of a list of numbers.

    Raises:
        Invalid: it is no list, too long, or has elements of another type.
        Unreadable: a part of it that is parsed only here is not JSON.
    """
    if json.is_object(value) and {*tensors.PACKED} <= {*value.keys()}:
        found = _unpacked(document, value, where)
    else:
        found = _elements(value, where)
        for place, one in enumerate(found):
            if isinstance(one, dict):
                _unpack_members(cast(dict[str, Any], one), (*where, place))
    try:
        return _validated(element, found)
    except ValidationError as error:
        raise Invalid(*_faults(error, found, where)) from None


def _validated(element: Any, found: list[Any]) -> list[Any]:
    """Validate a list; where that fails, integers may be written as ``1.0``.

    Raises:
        ValidationError: an element is of another type.
    """
    try:
        return _adapter(element).validate_python(found)
    except ValidationError:
        return _adapter(element).validate_python(_with_integers(found))


def _with_integers(value: Any) -> Any:
    """Return a value in which floats without a fraction are integers."""
    if isinstance(value, float):
        # -0.0 would lose its sign
        whole = value.is_integer() and abs(value) < EXACT and str(value) != "-0.0"
        return int(value) if whole else value
    if isinstance(value, list):
        return [_with_integers(one) for one in cast(list[Any], value)]
    if isinstance(value, dict):
        return {name: _with_integers(one) for name, one in cast(dict[str, Any], value).items()}
    return value


def _unpacked(document: Document, value: Any, where: tuple[str | int, ...]) -> list[Any]:
    """Return a packed tensor as a list.

    Raises:
        Invalid: it is no packed tensor, has no dimension, or too many elements.
    """
    tensor = tensors.read_tensor(document, value, *where).tensor
    if not tensor.dim():
        detail = "Expected a list with one value a sample; got a tensor without dimensions."
        raise Invalid(Fault(pointer(*where), "type", detail))
    if tensor.numel() > MOST_SAMPLES:
        raise Invalid(
            Fault(pointer(*where), "size", f"Expected at most {MOST_SAMPLES} values; got {tensor.numel()}.")
        )
    return cast(Any, tensor).tolist()


def _unpack_members(members: dict[str, Any], where: tuple[str | int, ...]) -> None:
    """Replace packed tensors among the members of an object by lists.

    Raises:
        Invalid: one is no valid tensor.
    """
    for name, one in members.items():
        if isinstance(one, dict) and cast(dict[str, Any], one).keys() == {*tensors.PACKED}:
            document = Document(orjson.dumps(one))
            members[name] = _unpacked(document, document.root, (*where, name))


def _elements(value: Any, where: tuple[str | int, ...]) -> list[Any]:
    """Return an array as Python values.

    Raises:
        Invalid: it is no list, or too long.
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
    return found


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
    """Return a fault for each place, with the types that it could have had.

    Where one alternative of a union fits but for a part, that part is at fault, and not the whole as the other alternatives say.
    """
    expected: dict[tuple[str | int, ...], list[str]] = {}
    shown: dict[tuple[str | int, ...], str] = {}
    for one in error.errors(include_url=False):
        at = _place(one["loc"], found, missing=one["type"] == "missing")
        words, shown[at] = _words(one)
        expected.setdefault(at, []).append(words)
        if len(expected) > 2 * MOST_FAULTS:
            break
    above = {at[:end] for at in expected for end in range(len(at))}
    return [
        Fault(
            pointer(*where, *at), "value", f"Expected {' or '.join(dict.fromkeys(words))}; got {shown[at]}."
        )
        for at, words in expected.items()
        if at not in above
    ][:MOST_FAULTS]


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


def _place(location: tuple[int | str, ...], found: Any, *, missing: bool) -> tuple[str | int, ...]:
    """Return the part of a location that leads into the value; pydantic adds the names of union members.

    Only the last step may lead to what is not there: a ``missing`` member.
    """
    place: list[str | int] = []
    for end, step in enumerate(location, 1):
        if isinstance(found, list) and isinstance(step, int) and step < len(cast(list[Any], found)):
            found = cast(list[Any], found)[step]
        elif isinstance(found, dict) and step in found:
            found = cast(dict[Any, Any], found)[step]
        elif not (missing and end == len(location)):
            continue
        place.append(step)
    return tuple(place)


def _shown(value: Any) -> Any:
    """Return a value that can be shown: containers as a short text of themselves."""
    if isinstance(value, list):
        return cast(list[Any], value)[:8]
    return list(cast(dict[str, Any], value))[:8] if isinstance(value, dict) else value
