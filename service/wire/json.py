"""Read short JSON texts without making Python objects of numbers: simdjson parses, arrays stay in its memory."""

import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Any, cast

import orjson
import simdjson

from service.problems import MOST_FAULTS, Fault, pointer, quoted
from service.wire.inference.nonfinite import spelled
from service.wire.text import TOO_DEEP, Span

PARSED = {simdjson.Array, simdjson.Object}
UNREAD = {*PARSED, Span}
"""Types of what is not a Python value yet."""
MOST_MEMBERS = 10_000
"""Names of one object that are looked at. To make words of millions takes seconds, in which nothing else runs."""
MOST_SHOWN = 60
"""Characters of a value that messages quote."""

IN_USE = "Tried to re-use a parser"
"""How a parser says that something of its last document is still there, such as in an exception's frames."""
MOST_DIGITS = 20
"""Characters of the integers that may be of 64 bits, with their sign."""
BEYOND = ("BIGINT_ERROR", "NUMBER_ERROR")
"""How simdjson refuses integers beyond 64 bits."""
_BEYOND_64_BITS = re.compile(
    rb'"(?:[^"\\]|\\.)*+"|(?<![\d.eE+-])(-\d{19,}+|\d{20,}+)(?=[\s,\]}]|$)', re.DOTALL
)

_local = threading.local()


class Broken(ValueError):
    """A text is not JSON; ``place`` is where, in bytes, None where it is nested too deep."""

    def __init__(self, reason: str, place: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def parse(text: bytes, *, alone: bool = False, words: bool = False) -> Any:
    """Return the document: scalars as Python values, objects and arrays unread.

    A thread's documents share a parser, one at a time; ``alone`` gives this one its own. NaN and Infinity are
    read as ``words`` where they are allowed.

    Raises:
        Broken: the text is not JSON, or holds a number beyond float64.
    """
    parser = simdjson.Parser() if alone else _parser()
    try:
        return parser.parse(text)
    except (ValueError, RuntimeError) as error:
        told = str(error)
    if told.startswith(IN_USE):
        return parse(text, alone=True, words=words)
    if words and (worded := spelled(text)) is not None:
        return parse(worded, alone=alone)
    # floats may be of any length. What stands in a string stays as it is
    mended = _BEYOND_64_BITS.sub(_as_float, text) if told.startswith(BEYOND) else text
    try:
        return simdjson.Parser().parse(mended)
    except (ValueError, RuntimeError):
        raise Broken(*_what_is_wrong(text)) from None


def is_object(value: Any) -> bool:
    """Tell whether a value is a JSON object."""
    return isinstance(value, simdjson.Object)


def is_array(value: Any) -> bool:
    """Tell whether a value is a JSON array."""
    return isinstance(value, simdjson.Array) or (isinstance(value, Span) and value.is_array)


def is_span(value: Any) -> bool:
    """Tell whether a value is an array or a string that is too long for what it is wanted for."""
    return isinstance(value, Span)


def are_arrays(values: Iterable[Any]) -> bool:
    """Tell whether all values are short JSON arrays, at C speed."""
    return set(map(type, values)) <= {simdjson.Array}


def members(value: Any, known: Collection[str], *where: str | int) -> tuple[dict[str, Any], list[Fault]]:
    """Return the members of an object that are known, unread, and a fault for each unknown or repeated name."""
    if len(value) > MOST_MEMBERS:
        detail = f"Expected at most {MOST_MEMBERS} names; got {len(value)}."
        return {}, [Fault(pointer(*where), "size", detail)]
    # the parser's own way through members reads all that is in them
    names: list[str] = list(value.keys())
    if len(names) == len(set(names)) and all(name in known for name in names):
        return {name: value[name] for name in names}, []
    times = Counter(names)
    expected = f"one of {', '.join(known)}" if known else "no names"
    unknown = islice((name for name in times if name not in known), MOST_FAULTS)
    faults = [
        Fault(pointer(*where, name), "unknown", f"Expected {expected}; got {quoted(name)}.")
        for name in unknown
    ]
    faults += [
        Fault(pointer(*where, name), "duplicate", f"Expected the name once; got it {times[name]} times.")
        for name in known
        if times[name] > 1
    ]
    return {name: value[name] for name in known if name in times}, faults


def plain(value: Any, levels: int) -> Any:
    """Return an array as a tuple, or of tuples; whatever holds objects, or arrays deeper than ``levels``, stays unread.

    What stays unread is looked at in passing: to hold millions of the parser's arrays takes seconds.
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
    """Write a value as messages quote it: as JSON, shortened.

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
    """Say that a value is no object; PHP's encoder writes an empty one as an array.

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
    """Write an integer beyond 64 bits as a float; a string stays, as does what simdjson can read."""
    digits = found[1]
    if digits is None or (len(digits) <= MOST_DIGITS and -(2**63) <= int(digits) < 2**64):
        return found[0]
    return digits + b"e0"


def _what_is_wrong(text: bytes) -> tuple[str, int | None]:
    """Say why a text is not JSON, and where: simdjson does not tell, orjson does."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return "a byte that is not UTF-8", error.start
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return error.msg, len(error.doc[: error.pos].encode())
    return TOO_DEEP, None
