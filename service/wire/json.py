"""Read JSON without making Python objects of numbers: simdjson parses, arrays stay in its memory."""

import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Any

import numpy as np
import orjson
import simdjson

from service.problems import MOST_FAULTS, Fault, Unreadable, pointer, quoted

LARGE = 1 << 24
"""Bodies of more bytes get a parser of their own: a parser keeps the memory that its largest body took."""
MOST_COUNTED = 0xFFFFFF
"""simdjson counts an array's elements up to here: longer ones say that they are as long as this."""
UNREAD = {simdjson.Array, simdjson.Object}
"""Types of what the parser has not made Python values of."""
BLOCK = 1 << 17
"""Bytes that are looked through at once."""
MOST_MEMBERS = 10_000
"""Names of one object that are looked at. To make words of millions takes seconds, in which nothing else runs."""
MOST_SHOWN = 60
"""Characters of a value that messages quote."""

IN_USE = "Tried to re-use a parser"
"""How a parser says that something of its last document is still there, such as in an exception's frames."""

# unsigned 64 bits hold every number of 19 digits, signed ones do not
_BEYOND_64_BITS = re.compile(rb"(?<![\d.eE+-])(-\d{19,}+|\d{20,}+)(?=[\s,\]}])")

Body = bytes | memoryview
"""What a client sent."""
_local = threading.local()


def parse(body: Body, *, alone: bool = False) -> Any:
    """Return the document: scalars as Python values, objects and arrays unread.

    A thread's documents share a parser, one at a time; ``alone`` gives this one its own.

    Raises:
        Unreadable: the body is not JSON, or holds a number beyond float64; the detail says where.
    """
    parser = simdjson.Parser() if alone else _parser(len(body))
    try:
        return parser.parse(body)
    except (ValueError, RuntimeError) as error:
        told = str(error)
    if told.startswith(IN_USE):
        return parse(body, alone=True)
    # simdjson reads no integers beyond 64 bits, but floats of any length. A string that is of use in a request
    # does not hold so many digits before what may follow a number
    by_number = told.startswith(("BIGINT_ERROR", "NUMBER_ERROR"))
    mended = _BEYOND_64_BITS.sub(rb"\1e0", bytes(body)) if by_number else body
    try:
        return simdjson.Parser().parse(mended)
    except (ValueError, RuntimeError):
        raise Unreadable(f"The body is not readable JSON: {_what_is_wrong(bytes(body))}.") from None


def count_brackets(body: Body) -> int:
    """Return how often ``[`` stands in a body, in blocks that stay in the processor's cache."""
    if len(body) <= BLOCK:
        return bytes(body).count(b"[")
    octets = np.frombuffer(body, np.uint8)
    blocks = (octets[start : start + BLOCK] for start in range(0, len(octets), BLOCK))
    return sum(int(np.count_nonzero(block == ord("["))) for block in blocks)


def brackets(value: Any) -> int:
    """Return how often ``[`` stands in the JSON of a value."""
    if is_array(value) or is_object(value):
        return count_brackets(value.mini)
    return value.count("[") if isinstance(value, str) else 0


def is_object(value: Any) -> bool:
    """Tell whether a value is a JSON object."""
    return isinstance(value, simdjson.Object)


def is_array(value: Any) -> bool:
    """Tell whether a value is a JSON array."""
    return isinstance(value, simdjson.Array)


def are_arrays(values: Iterable[Any]) -> bool:
    """Tell whether all values are JSON arrays, at C speed."""
    return set(map(type, values)) <= {simdjson.Array}


def length(array: Any) -> int:
    """Return how many elements an array has."""
    counted = len(array)
    return counted if counted < MOST_COUNTED else sum(1 for _ in array)


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
    if not is_array(value):
        return value
    # the parser's own conversion to a list writes out of bounds beyond MOST_COUNTED
    found = set(map(type, value))
    if not found & UNREAD:
        return tuple(value)
    rows_only = levels > 1 and found == {simdjson.Array}
    if rows_only and not set(map(type, chain.from_iterable(value))) & UNREAD:
        rows: Any = map(tuple, value)
        return (*rows,)
    return value


def show(value: Any) -> str:
    """Write a value as messages quote it: as JSON, shortened.

    >>> show("a")
    '"a"'
    """
    if is_array(value) or is_object(value):
        text = value.mini[: 4 * MOST_SHOWN].decode(errors="ignore")
    else:
        text = orjson.dumps(value[:MOST_SHOWN] if isinstance(value, str) else value).decode()
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _parser(size: int) -> simdjson.Parser:
    """Return this thread's parser, or a fresh one for a large body."""
    if size > LARGE:
        return simdjson.Parser()
    parser: simdjson.Parser | None = getattr(_local, "parser", None)
    if parser is None:
        parser = _local.parser = simdjson.Parser()
    return parser


def _what_is_wrong(body: bytes) -> str:
    """Say why a body is not JSON, and where: simdjson does not tell, orjson does."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return str(error)
    return "its arrays and objects are nested too deep"
