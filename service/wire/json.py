"""Read JSON without making Python objects of numbers: simdjson parses, arrays stay in its memory."""

import threading
from collections.abc import Iterator
from typing import Any, cast

import orjson
import simdjson

from service.problems import Fault, Invalid, Unreadable, pointer

LARGE = 1 << 24
"""Bodies of more bytes get a parser of their own: a parser keeps the memory that its largest body took."""

_local = threading.local()


def parse(body: bytes) -> Any:
    """Return the document: scalars as Python values, objects and arrays unread.

    Integers beyond 64 bits, which simdjson does not read, make it a document of plain Python values.

    Raises:
        Unreadable: the body is not JSON; the detail says where.
    """
    try:
        return _parser(len(body)).parse(body)
    except (ValueError, RuntimeError):
        return _parse_plainly(body)


def is_object(value: Any) -> bool:
    """Tell whether a value is a JSON object."""
    return isinstance(value, (simdjson.Object, dict))


def is_array(value: Any) -> bool:
    """Tell whether a value is a JSON array."""
    return isinstance(value, (simdjson.Array, list))


def members(value: Any, *where: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of an object, unread.

    Raises:
        Invalid: a name stands there twice, so that what is meant is anybody's guess.
    """
    seen = set[str]()
    for name in list(value.keys()):
        if name in seen:
            detail = f"Expected each name once; got {name!r} twice."
            raise Invalid(Fault(pointer(*where, name), "duplicate", detail))
        seen.add(name)
        yield name, value[name]


def plain(value: Any) -> Any:
    """Return a value as Python objects, arrays as lists."""
    if isinstance(value, simdjson.Array):
        return cast(list[Any], value.as_list())  # pyright: ignore[reportUnknownMemberType]
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def show(value: Any) -> str:
    """Write a value as messages quote it: as JSON, shortened.

    >>> show([1, "a"])
    '[1,"a"]'
    """
    if is_array(value):
        value = [plain(item) for item, _ in zip(value, range(20), strict=False)]
    text = orjson.dumps(plain(value), default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parser(size: int) -> simdjson.Parser:
    """Return this thread's parser, or a fresh one for a large body."""
    if size > LARGE:
        return simdjson.Parser()
    parser: simdjson.Parser | None = getattr(_local, "parser", None)
    if parser is None:
        parser = _local.parser = simdjson.Parser()
    return parser


def _parse_plainly(body: bytes) -> Any:
    """Parse with orjson: it reads what simdjson cannot, and says where a body breaks."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"The body is not JSON: {error}.") from None
