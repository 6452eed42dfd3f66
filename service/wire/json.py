"""Read short JSON texts without Python objects for numbers: simdjson parses, arrays stay in its memory."""

import re
import threading
from collections.abc import Iterable
from itertools import chain
from typing import Any, cast

import orjson
import simdjson

from service.wire.inference.nonfinite import spelled
from service.wire.text import TOO_DEEP, Span

ARRAY, OBJECT = simdjson.Array, simdjson.Object
"""Types of parsed arrays and objects whose contents are unread."""
PARSED = {simdjson.Array, simdjson.Object}
UNREAD = {*PARSED, Span}
"""Types of values that are not converted to Python yet."""
MOST_SHOWN = 60
"""Most characters of a value in messages."""

IN_USE = "Tried to re-use a parser"
"""The parser's message if a value of its last document is still referenced, such as from a traceback."""
MOST_DIGITS = 20
"""Most characters of an integer that may fit into 64 bits, with its sign."""
BEYOND = ("BIGINT_ERROR", "NUMBER_ERROR")
"""Error codes of simdjson for integers beyond 64 bits."""
_BEYOND_64_BITS = re.compile(
    rb'"(?:[^"\\]|\\.)*+"|(?<![\d.eE+-])(-\d{19,}+|\d{20,}+)(?=[\s,\]}]|$)', re.DOTALL
)

_local = threading.local()


class Broken(ValueError):
    """A text is not JSON; ``place`` is the byte offset of the error, None if it is nested too deep."""

    def __init__(self, reason: str, place: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def parse(text: bytes, *, alone: bool = False, words: bool = False) -> Any:
    """Parse a document: scalars become Python values, objects and arrays stay unread.

    Documents of a thread share a parser, one at a time; with ``alone`` this one gets its own. With ``words``, NaN and
    Infinity are allowed and read as strings.

    Raises:
        Broken: the text is not JSON, or holds a number beyond float64.
    """
    parser = simdjson.Parser() if alone else _parser()
    try:
        return parser.parse(text)
    except (ValueError, RuntimeError) as error:
        message = str(error)
    if message.startswith(IN_USE):
        return parse(text, alone=True, words=words)
    if words and (worded := spelled(text)) is not None:
        return parse(worded, alone=alone)
    # floats may have any number of digits. Strings stay as they are
    mended = _BEYOND_64_BITS.sub(_as_float, text) if message.startswith(BEYOND) else text
    try:
        return simdjson.Parser().parse(mended)
    except (ValueError, RuntimeError):
        raise Broken(*_what_is_wrong(text)) from None


def is_object(value: Any) -> bool:
    """Return whether a value is a JSON object."""
    return isinstance(value, simdjson.Object)


def is_array(value: Any) -> bool:
    """Return whether a value is a JSON array."""
    return isinstance(value, simdjson.Array) or (isinstance(value, Span) and value.is_array)


def is_span(value: Any) -> bool:
    """Return whether a value is an array or string that was too long to parse."""
    return isinstance(value, Span)


def are_arrays(values: Iterable[Any]) -> bool:
    """Return whether all values are short JSON arrays, at C speed."""
    return set(map(type, values)) <= {simdjson.Array}


def plain(value: Any, levels: int) -> Any:
    """Return an array as nested tuples; values with objects, or arrays deeper than ``levels``, stay unread.

    Unread values are not kept while looking: holding millions of the parser's arrays takes seconds.
    """
    if type(value) is not simdjson.Array:
        return value
    found = set(map(type, value))
    if not found & UNREAD:
        return tuple(value)
    rows = cast(Iterable[Any], value)
    rows_only = levels > 1 and found == {simdjson.Array}
    if rows_only and not set(map(type, chain.from_iterable(rows))) & UNREAD:
        return (*map(tuple, rows),)
    return value


def show(value: Any) -> str:
    """Format a value for messages: as JSON, shortened.

    >>> show("a")
    '"a"'
    """
    if isinstance(value, Span):
        text = bytes(memoryview(value.body)[value.start : value.start + 4 * MOST_SHOWN])
        shown = (
            text.decode(errors="replace")
            if not value.is_array
            else b"".join(text.split()).decode(errors="replace")
        )
    elif type(value) in PARSED:
        shown = value.mini[: 4 * MOST_SHOWN].decode(errors="ignore")
    else:
        shown = orjson.dumps(value[:MOST_SHOWN] if isinstance(value, str) else value).decode()
    return shown if len(shown) <= MOST_SHOWN else f"{shown[: MOST_SHOWN - 3]}..."


def no_object(value: Any) -> str:
    """Say that a value is not an object, with a hint for PHP, which encodes an empty one as an array.

    >>> no_object(1)
    'Expected an object; got 1.'
    """
    shown = show(value)
    hint = (
        " An empty object is {}: in PHP, encode (object)[] or leave the member out." if shown == "[]" else ""
    )
    return f"Expected an object; got {shown}.{hint}"


def _parser() -> simdjson.Parser:
    """Return this thread's parser."""
    parser: simdjson.Parser | None = getattr(_local, "parser", None)
    if parser is None:
        parser = _local.parser = simdjson.Parser()
    return parser


def _as_float(found: re.Match[bytes]) -> bytes:
    """Write an integer beyond 64 bits as a float; leave strings and other numbers unchanged."""
    digits = found[1]
    if digits is None or (len(digits) <= MOST_DIGITS and -(2**63) <= int(digits) < 2**64):
        return found[0]
    return digits + b"e0"


def _what_is_wrong(text: bytes) -> tuple[str, int | None]:
    """Return why a text is not JSON, and where. simdjson does not say; orjson does."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return "a byte that is not UTF-8", error.start
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return error.msg, len(error.doc[: error.pos].encode())
    return TOO_DEEP, None
