"""Rows of a metric as columns: the statistics of each sample, which are kept, merged, selected and finished together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Ragged:
    """A column with any number of entries a row, such as the detections in an image.

    ``lengths [N]`` are the numbers of entries, ``values [sum of lengths, ...]`` the entries of all rows, one row after another.
    """

    lengths: Array
    values: Array

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, places: Array) -> "Ragged":
        """Return the rows at these places."""
        lengths = self.lengths[places]
        starts = (np.cumsum(self.lengths) - self.lengths)[places]
        within: Array = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged(lengths, self.values[np.repeat(starts, lengths) + within])

    @property
    def rows(self) -> Array:
        """The row of each entry."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


Column = Array | Ragged
"""A value for each row: an array ``[N, ...]`` of numbers, booleans or (dtype object) strings, or any number of entries a row."""
Columns = Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as columns of equal length."""

    columns: Columns
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, name: str) -> Array:
        column = self.columns[name]
        assert not isinstance(column, Ragged), f"{name} is ragged"
        return column

    def ragged(self, name: str) -> Ragged:
        """Return a column with any number of entries a row."""
        column = self.columns[name]
        assert isinstance(column, Ragged), f"{name} has one entry a row"
        return column

    def take(self, places: Array) -> "Table":
        """Return the rows at these places, or those that a mask selects."""
        if places.dtype == np.bool_:
            places = np.flatnonzero(places)
        columns = {
            name: column.take(places) if isinstance(column, Ragged) else column[places]
            for name, column in self.columns.items()
        }
        return Table(columns, len(places))


def table(columns: Columns) -> Table:
    """Return columns as a table.

    Raises:
        ValueError: they differ in length, or there are none.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of {sorted(lengths)} rows")
    return Table(columns, lengths.pop())


def joined_column(columns: Sequence[Column]) -> Column:
    """Return a column whose parts follow one another."""
    if isinstance(columns[0], Ragged):
        ragged = cast(Sequence[Ragged], columns)
        return Ragged(
            np.concatenate([one.lengths for one in ragged]), np.concatenate([one.values for one in ragged])
        )
    return np.concatenate(cast(Sequence[Array], columns))
