"""The rows of a part, or of a whole evaluation: ids, weights, slices and the columns of all metrics, row by row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from service.catalogue.table import Array, Column, Ragged, Table, joined_column

SEPARATOR = "/"
"""Stands between a metric's name, which cannot have it, and the name of its column."""


@dataclass(frozen=True, slots=True)
class Categories:
    """A column of few different texts: the texts, and the place ``[N]`` of each row's text among them."""

    texts: tuple[str, ...]
    places: Array

    @classmethod
    def of(cls, values: Iterable[str]) -> "Categories":
        """Return texts as labels."""
        known: dict[str, int] = {}
        places = np.array([known.setdefault(value, len(known)) for value in values], np.int32)
        return cls(tuple(known), places)

    def take(self, places: Array) -> "Categories":
        """Return the labels of the rows at these places."""
        return Categories(self.texts, self.places[places])


def texts_as_bytes(texts: Sequence[bytes]) -> Ragged:
    """Return texts as a column of bytes, without a Python object for each."""
    lengths = np.fromiter(map(len, texts), np.int32, len(texts))
    return Ragged(lengths, np.frombuffer(b"".join(texts), np.uint8))


def bytes_as_texts(column: Ragged) -> list[bytes]:
    """Return a column of bytes as texts."""
    ends = np.cumsum(column.lengths, dtype=np.int64).tolist()
    whole = column.values.tobytes()
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in columns of equal length.

    ``ids`` are bytes of UTF-8, ``contents`` the hashes of what was sent; both are None if ids are the places of the rows.
    ``columns`` are those of all metrics, by `column_name`; equal ones are the same object.
    """

    count: int
    ids: Ragged | None
    contents: Array | None
    weights: Array | None
    labels: Mapping[str, Categories]
    columns: Mapping[str, Column]

    def take(self, places: Array) -> "Rows":
        """Return the rows at these places."""
        taken = {id(one): _taken(one, places) for one in self.columns.values()}
        return replace(
            self,
            count=len(places),
            ids=None if self.ids is None else self.ids.take(places),
            contents=None if self.contents is None else self.contents[places],
            weights=None if self.weights is None else self.weights[places],
            labels={name: labels.take(places) for name, labels in self.labels.items()},
            columns={name: taken[id(one)] for name, one in self.columns.items()},
        )

    def table(self, metric: str) -> Table:
        """Return the columns of one metric."""
        prefix = metric + SEPARATOR
        columns = {
            name.removeprefix(prefix): column
            for name, column in self.columns.items()
            if name.startswith(prefix)
        }
        return Table(columns, self.count)

    @property
    def bytes(self) -> int:
        """The memory of all columns, those that are the same object counted once."""
        distinct = {id(one): one for one in self.columns.values()}.values()
        others = [self.ids, self.contents, self.weights, *(labels.places for labels in self.labels.values())]
        return sum(_bytes(one) for one in (*distinct, *others) if one is not None)


def column_name(metric: str, column: str) -> str:
    """Return the name of a metric's column among those of all metrics."""
    return f"{metric}{SEPARATOR}{column}"


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, which have the same columns, one part after another."""
    first, *others = parts
    if not others:
        return first
    done: dict[tuple[int, ...], Column] = {}

    def joined(columns: Sequence[Column]) -> Column:
        key = tuple(map(id, columns))
        if key not in done:
            done[key] = joined_column(columns)
        return done[key]

    return Rows(
        sum(part.count for part in parts),
        cast(Ragged | None, _joined_if_there([part.ids for part in parts])),
        cast(Array | None, _joined_if_there([part.contents for part in parts])),
        cast(Array | None, _joined_if_there([part.weights for part in parts])),
        {name: _joined_labels([part.labels[name] for part in parts]) for name in first.labels},
        {name: joined([part.columns[name] for part in parts]) for name in first.columns},
    )


def _joined_if_there(columns: Sequence[Column | None]) -> Column | None:
    """Join the parts of a column that all parts have, or none."""
    there = [column for column in columns if column is not None]
    return joined_column(there) if there else None


def _joined_labels(parts: Sequence[Categories]) -> Categories:
    """Join the parts of a column of labels."""
    known: dict[str, int] = {}
    places: list[Array] = []
    for part in parts:
        new = np.array([known.setdefault(text, len(known)) for text in part.texts], np.int32)
        places.append(new[part.places] if len(new) else part.places)
    return Categories(tuple(known), np.concatenate(places))


def _taken(column: Column, places: Array) -> Column:
    """Return the rows of a column at these places."""
    return column.take(places) if isinstance(column, Ragged) else column[places]


def _bytes(column: Column) -> int:
    """Return the memory of a column; a Python string takes about 64 bytes."""
    if isinstance(column, Ragged):
        return column.lengths.nbytes + _bytes(column.values)
    return column.nbytes if column.dtype != object else 64 * column.size
