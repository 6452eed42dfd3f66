"""The reader of JSON: every body, of any size, from any door, is a `Document`.

Short texts are parsed whole. In long ones, arrays and long strings are left out and read on demand, a block at a time:
no step blocks the interpreter for more than some hundredths of a second.
"""

import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import Any

import orjson

from service.problems import MOST_CHARACTERS, MOST_FAULTS, Fault, Invalid, pointer, quoted
from service.wire import json
from service.wire.nesting import nested_alike
from service.wire.scan import outline, scan
from service.wire.text import BLOCK, Body, Span, trim, unreadable

SHORT = 1 << 13
"""Texts of up to this many bytes are parsed whole: searching them for arrays would take longer."""
MODERATE = 1 << 20
"""Texts of many strings are parsed whole up to this many bytes, which takes some milliseconds."""
MOST_BESIDE = 1 << 22
"""Most bytes outside arrays and long strings: parsing more would take too long."""
MOST_LISTED = 1 << 18
"""Most values of a list that become Python objects."""
MOST_MEMBERS = 10_000
"""Most names of an object that are read. Decoding millions takes seconds, in which nothing else runs."""
LONGEST_LISTED = 1 << 23
"""Longest list or string, in bytes, that becomes a Python object; a longer one stays unread."""


class Document:
    """A JSON text, a body or a part of one. ``root`` is its value.

    ``row``: the text is a run of array elements separated by commas. ``words``: NaN and Infinity are read as
    strings. ``split``: arrays and long strings are left out; by default only those of a text that is not short.

    Raises:
        Unreadable: it is not JSON, as far as it is parsed at once.
        Invalid: too much of it lies outside arrays and long strings.
    """

    def __init__(
        self,
        body: Body,
        start: int = 0,
        end: int | None = None,
        *,
        row: bool = False,
        words: bool = False,
        split: bool | None = None,
    ) -> None:
        end = len(body) if end is None else end
        self._body, self._words = body, words
        self._spans: Mapping[str, Span] = {}
        if split is None and end - start <= MODERATE:
            spans = outline(body, start, end) if end - start > SHORT else []
        elif split is False:
            spans = []
        else:
            start, end = trim(body, start, end)
            spans = scan(body, start, end)
        mark = secrets.token_hex(8) if spans else ""
        self._spans = {f"{mark}{place}": span for place, span in enumerate(spans)}
        marks = [
            _name(span, place) or name.encode() for place, (name, span) in enumerate(self._spans.items())
        ]
        text = _without(body, start, end, spans, marks)
        try:
            root = json.parse(b"[%b]" % text if row else text, alone=bool(row or spans), words=words)
        except json.Broken as broken:
            place = broken.place
            if place is not None:
                place = _place(min(max(place - row, 0), len(text)), start, spans, marks)
            raise unreadable(body, broken.reason, place) from None
        self.is_split = bool(spans)
        """Whether arrays or strings were left out."""
        self.root = self.resolve(root)
        self._row_text = text if row and not spans else None

    @cached_property
    def alike(self) -> bool:
        """Whether this is a row of elements with equal nesting, of which nothing was left out."""
        return self._row_text is not None and nested_alike(self._row_text, len(self.root))

    def resolve(self, value: Any) -> Any:
        """Return a value, or the array or string that was left out in its place."""
        return self._spans.get(value, value) if self._spans and type(value) is str else value

    def members(
        self, value: Any, known: Collection[str], *where: str | int
    ) -> tuple[dict[str, Any], list[Fault]]:
        """Return the known members of an object, unread, and a fault for each unknown or repeated name."""
        if len(value) > MOST_MEMBERS:
            detail = f"Expected at most {MOST_MEMBERS} names; got {len(value)}."
            return {}, [Fault(pointer(*where), "size", detail)]
        # iterating over the parser's items would convert their values
        names: list[str] = list(value.keys())
        faults: list[Fault] = []
        if len({*names}.intersection(known)) < len(names):
            faults = _wrong_names(names, known, where)
            names = [name for name in known if name in names]
        if strange := [name for name in names if "\0" in name]:
            # the parser looks up what stands before it
            detail = "Expected a name without the character U+0000; got {}."
            faults += [Fault(pointer(*where, name), "name", detail.format(quoted(name))) for name in strange]
            names = [name for name in names if "\0" not in name]
        found = {name: value[name] for name in names}
        if self._spans:
            found = {name: self.resolve(one) for name, one in found.items()}
        return found, faults

    def given(
        self, value: Any, known: Collection[str], *where: str | int, others: Collection[str] = ()
    ) -> tuple[dict[str, Any], list[Fault]]:
        """Return the same as `members`, but without nulls: generated clients send them for absent members.

        They send them for ``others`` too: members that only another kind of object has.
        """
        nulls = [name for name in others if name not in known and name in value and value[name] is None]
        found, faults = self.members(value, [*known, *nulls] if nulls else known, *where)
        return {name: one for name, one in found.items() if one is not None}, faults

    def elements(self, array: Any) -> Iterator[tuple["Document", list[Any]]]:
        """Yield the elements of an array in runs, each with its document.

        Raises:
            Unreadable: a part of the array is not JSON.
        """
        if not isinstance(array, Span):
            yield self, [self.resolve(one) for one in array]
            return
        for start, end in array.runs():
            if start == end:
                continue
            if end - start > 2 * BLOCK and self._body[start] == ord("{"):
                document = Document(self._body, start, end, words=self._words)
                yield document, [document.root]
            else:
                document = self._row(start, end)
                yield document, [document.resolve(one) for one in document.root]

    def plain(self, value: Any, levels: int = 1) -> Any:
        """Return an array as a tuple, or nested tuples; values that are too long, too deep or hold objects stay unread.

        Raises:
            Unreadable: a part of the array is not JSON.
        """
        if not isinstance(value, Span) or len(value) > LONGEST_LISTED:
            return json.plain(value, levels)
        if not value.is_array:
            return _string(value)
        runs = [run for run in value.runs() if run[0] < run[1]]
        if any(end - start > 2 * BLOCK for start, end in runs):
            return value
        rows = [json.plain(self._row(*run, split=False).root, levels) for run in runs]
        found = tuple(chain.from_iterable(rows)) if all(type(row) is tuple for row in rows) else value
        return value if found is not value and len(found) > MOST_LISTED else found

    def _row(self, start: int, end: int, *, split: bool | None = None) -> "Document":
        """Return a run of an array's elements as a document."""
        return Document(self._body, start, end, row=True, words=self._words, split=split)


def read_object(body: Body) -> Document:
    """Return the document of a body that is an object.

    Raises:
        Unreadable: it is not JSON.
        Invalid: it is something else.
    """
    document = Document(body)
    if not json.is_object(document.root):
        raise Invalid(Fault("", "type", f"Expected a JSON object; got {json.show(document.root)}."))
    return document


def _wrong_names(names: Sequence[str], known: Collection[str], where: tuple[str | int, ...]) -> list[Fault]:
    """Return a fault for each unknown or repeated name."""
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
    return faults


def _without(body: Body, start: int, end: int, spans: Sequence[Span], marks: Sequence[bytes]) -> bytes:
    """Return a part of a body with marks in place of the values left out.

    Raises:
        Invalid: the rest is still long.
    """
    size = end - start - sum(map(len, spans))
    if size > MOST_BESIDE:
        detail = f"Expected at most {MOST_BESIDE} bytes beside arrays and long strings; got {size}."
        raise Invalid(Fault("", "size", detail))
    if not spans:
        return bytes(body[start:end])
    pieces, view = list[bytes](), memoryview(body)
    for span, mark in zip(spans, marks, strict=True):
        pieces += (bytes(view[start : span.start]), b'"%b"' % mark)
        start = span.end
    return b"".join((*pieces, bytes(view[start:end])))


def _name(span: Span, place: int) -> bytes | None:
    """Return the beginning of a long string that is a member's name, so that it can be refused."""
    behind = bytes(memoryview(span.body)[span.end : span.end + MOST_CHARACTERS]).lstrip()
    if span.is_array or not behind.startswith(b":"):
        return None
    begin = next(span.pieces(2 * MOST_CHARACTERS))
    return begin.partition(b"\\")[0].decode(errors="ignore").encode() + b"...%d" % place


def _place(place: int, start: int, spans: Sequence[Span], marks: Sequence[bytes]) -> int:
    """Translate a position in the shortened text to the position in the body."""
    for span, mark in zip(spans, marks, strict=True):
        left = len(mark) + 2
        if start + place < span.start + left:
            break
        start += len(span) - left
    return start + place


def _string(span: Span) -> Any:
    """Return a long string as a Python value; it stays unread if it is not a string."""
    try:
        return orjson.loads(span.text)
    except orjson.JSONDecodeError:
        return span
