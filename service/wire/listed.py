"""Lists with one JSON value a sample: texts, tags, the objects in an image, values of slices."""

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from service.problems import MOST_FAULTS, Fault, Invalid, pointer
from service.wire import json
from service.wire.document import LONGEST_LISTED
from service.wire.text import Span, unreadable

MOST_SAMPLES = 1 << 21
"""Most values of a list."""
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
    # an element may be a union, or a typed dict with a configuration that differs
    listed: Any = list.__class_getitem__(element)
    config = None if is_typeddict(element) else STRICT
    return TypeAdapter(listed, config=config)


def schema_of(element: Any) -> dict[str, Any]:
    """Return the JSON Schema of a list's values."""
    return _adapter(element).json_schema()["items"]


def _faults(error: ValidationError, found: list[Any], where: tuple[str | int, ...]) -> list[Fault]:
    """Return a fault for each place, with the types that it could have had."""
    expected: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for one in error.errors(include_url=False, include_context=False):
        place = _place(one["loc"], found)
        at = pointer(*where, *place)
        words = (
            one["msg"]
            .removeprefix("Input should be ")
            .removeprefix("Value error, ")
            .replace("a valid integer", "an integer")
            .replace("a valid ", "a ")
        )
        expected.setdefault(at, []).append(words)
        shown[at] = json.show(_shown(one["input"]))
        if len(expected) >= MOST_FAULTS:
            break
    return [
        Fault(at, "value", f"Expected {' or '.join(dict.fromkeys(words))}; got {shown[at]}.")
        for at, words in expected.items()
    ]


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
