"""Rows as NDJSON or CSV, rewritten as the JSON of their columns: every format is then read by the same reader."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from service.catalogue.rounds import go_on
from service.problems import MOST_FAULTS, Fault, Invalid, Unreadable, pointer, quoted
from service.wire.json import show
from service.wire.text import BLOCK, Body

LONGEST_CELL = (1 << 31) - 1
SPECIAL = {"nan": None, "true": True, "false": False}
"""Words of CSV, in lower case; numbers that JSON does not have are refused by the reader of the columns."""
csv.field_size_limit(LONGEST_CELL)


@dataclass(frozen=True, slots=True)
class Tabular:
    """The JSON of columns, and the line of each row."""

    text: bytes
    lines: Sequence[int]


def columns_of_ndjson(body: Body, columns: Collection[str]) -> Tabular:
    """Rewrite lines, each an object with a value for each column; empty lines are skipped.

    Raises:
        Unreadable: a line is not JSON; says which.
        Invalid: lines are no objects, or have other columns; lists every fault.
    """
    writer = _Writer(columns)
    for numbers, texts in _blocks(body):
        rows = _parsed(numbers, texts)
        writer.add(numbers, rows)
    return writer.written()


def columns_of_csv(body: Body, columns: Collection[str], texts: Collection[str]) -> Tabular:
    """Rewrite CSV in UTF-8 with a header; cells of the columns ``texts`` are texts as they are, others JSON values.

    Raises:
        Unreadable: it is not CSV in UTF-8.
        Invalid: the header has other columns, or rows have other lengths; lists every fault.
    """
    stream = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")
    reader = csv.reader(stream, strict=True)
    writer = _Writer(columns)
    try:
        header = next(reader, None) or []
        if faults := _wrong_header(header, columns):
            raise Invalid(*faults)
        for numbers, rows in _cells(reader):
            writer.add(
                numbers, [_row(header, row, texts) if len(row) == len(header) else row for row in rows]
            )
    except UnicodeDecodeError as error:
        raise Unreadable(f"Expected CSV in UTF-8; got other bytes: {error.reason}.") from None
    except csv.Error as error:
        raise Unreadable(f"The body is not readable CSV: {error}: line {reader.line_num}.") from None
    return writer.written()


class _Writer:
    """Collects rows as the JSON of columns, and their faults."""

    def __init__(self, columns: Collection[str]) -> None:
        self._columns = columns
        self._known = {*columns}
        self._pieces: Mapping[str, list[bytes]] = {name: [] for name in columns}
        self._lines: list[int] = []
        self._faults: list[Fault] = []

    def add(self, lines: Sequence[int], rows: Sequence[Any]) -> None:
        """Add some rows."""
        if not rows:
            return
        go_on()
        for line, row in zip(lines, rows, strict=True):
            if type(row) is not dict or cast(dict[str, Any], row).keys() != self._known:
                self._fault(len(self._lines) + 1, line, row)
            self._lines.append(line)
        if not self._faults:
            for name, pieces in self._pieces.items():
                pieces.append(orjson.dumps([row[name] for row in rows])[1:-1])

    def written(self) -> Tabular:
        """Return the JSON of all columns.

        Raises:
            Invalid: rows had faults.
        """
        if self._faults:
            raise Invalid(*self._faults)
        members = [
            orjson.dumps(name) + b":[" + b",".join(pieces) + b"]" for name, pieces in self._pieces.items()
        ]
        return Tabular(b"{" + b",".join(members) + b"}", self._lines)

    def _fault(self, count: int, line: int, row: Any) -> None:
        """Report what is wrong with a row."""
        if len(self._faults) >= MOST_FAULTS:
            return
        at = ("rows", count - 1)
        if type(row) is not dict:
            expected = f"an object with {', '.join(self._columns)}"
            detail = f"Expected {expected}; got {show(row)}."
            self._faults.append(Fault(pointer(*at), "type", detail, line))
            return
        names = cast(dict[str, Any], row).keys()
        self._faults += [
            Fault(pointer(*at, name), "missing", "Expected a value; got nothing.", line)
            for name in self._columns
            if name not in names
        ]
        expected = f"one of {', '.join(self._columns)}"
        self._faults += [
            Fault(pointer(*at, name), "unknown", f"Expected {expected}; got {quoted(name)}.", line)
            for name in names
            if name not in self._known
        ]


def _blocks(body: Body) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield the lines of a body that are not empty, some at a time, with their numbers from 1."""
    numbers: list[int] = []
    texts: list[bytes] = []
    size = 0
    for number, line in enumerate(io.BytesIO(body), 1):
        if text := line.strip():
            numbers.append(number)
            texts.append(text)
            size += len(text)
        if size >= BLOCK:
            yield numbers, texts
            numbers, texts, size = [], [], 0
    yield numbers, texts


def _parsed(numbers: Sequence[int], texts: Sequence[bytes]) -> list[Any]:
    """Parse lines together; one by one if that fails.

    Raises:
        Unreadable: a line is not JSON.
    """
    try:
        rows = orjson.loads(b"[" + b",".join(texts) + b"]")
        if len(rows) == len(texts):
            return rows
    except orjson.JSONDecodeError:
        pass
    return [_parsed_line(number, text) for number, text in zip(numbers, texts, strict=True)]


def _parsed_line(number: int, text: bytes) -> Any:
    """Parse one line."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        detail = f"{error.msg}: line {number} column {error.colno}"
        raise Unreadable(f"The body is not readable NDJSON: {detail}.") from None


def _wrong_header(header: Sequence[str], columns: Collection[str]) -> list[Fault]:
    """Return a fault for each column that is missing, unknown or repeated."""
    expected = f"Expected a header with {', '.join(columns)}"
    wrong = [name for place, name in enumerate(header) if name not in columns or name in header[:place]]
    return [
        Fault("", "missing", f"{expected}; {name} is missing.", 1) for name in columns if name not in header
    ] + [
        Fault("", "unknown", f"{expected}, each once; got {quoted(name)}.", 1) for name in wrong[:MOST_FAULTS]
    ]


def _cells(reader: Any) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield rows of cells, some at a time, with the number of each row's last line."""
    numbers: list[int] = []
    rows: list[list[str]] = []
    size = 0
    for row in reader:
        if row:
            numbers.append(reader.line_num)
            rows.append(row)
            size += sum(map(len, row)) + len(row)
        if size >= BLOCK:
            yield numbers, rows
            numbers, rows, size = [], [], 0
    yield numbers, rows


def _row(header: Sequence[str], cells: Sequence[str], texts: Collection[str]) -> dict[str, Any]:
    """Return a row of cells as an object."""
    return {name: cell if name in texts else _value(cell) for name, cell in zip(header, cells, strict=True)}


def _value(cell: str) -> Any:
    """Return the value of a cell: JSON, or a number as spreadsheets write it; other texts stay texts, which are refused."""
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        pass
    word = cell.strip().lower()
    if word in SPECIAL:
        return SPECIAL[word]
    try:
        # Python would also read 1_000
        return cell if "_" in cell else float(cell)
    except ValueError:
        return cell
