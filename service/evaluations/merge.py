"""All rows of an evaluation, merged by id: each id once, in an order that only the ids decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.catalogue.rounds import go_on
from service.catalogue.table import Array
from service.evaluations.identity import ID_BYTES, id_hashes, place_hashes
from service.evaluations.rows import Rows, bytes_as_texts, joined_rows


class Placed(NamedTuple):
    """The rows of a part, and its key."""

    key: str
    rows: Rows

    @property
    def hashes(self) -> Array:
        """The hash of each row's id."""
        ids = self.rows.ids
        return place_hashes(self.key, self.rows.count) if ids is None else id_hashes(bytes_as_texts(ids))


@dataclass(frozen=True, slots=True)
class Merged:
    """The rows of the first ``parts`` parts of an evaluation. Immutable.

    They are in the order of ``hashes``, those of their ids, or without ids in that of their parts' keys and places. ``part_of``
    are the places of parts in ``keys``, ``place_of`` those of rows in their parts.
    """

    keys: tuple[str, ...]
    rows: Rows
    hashes: Array
    part_of: Array
    place_of: Array

    @property
    def parts(self) -> int:
        """The number of parts."""
        return len(self.keys)

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        return self.rows.bytes + self.hashes.nbytes + self.part_of.nbytes + self.place_of.nbytes

    def extended(self, parts: Sequence[Placed]) -> "Merged":
        """Return the rows of these parts too, which follow in the order of their commits; of equal ids the first counts."""
        keys = (*self.keys, *(part.key for part in parts))
        numbered = [(self.parts + place, part) for place, part in enumerate(parts) if part.rows.count]
        if not numbered:
            return Merged(keys, self.rows, self.hashes, self.part_of, self.place_of)
        go_on()
        before = [self.rows] if self.rows.count else []
        counts = [part.rows.count for _, part in numbered]
        hashes = np.concatenate([self.hashes, *(part.hashes for _, part in numbered)])
        part_of = np.concatenate([self.part_of, np.repeat([n for n, _ in numbered], counts)]).astype(np.int32)
        place_of = np.concatenate([self.place_of, *map(np.arange, counts)]).astype(np.int32)
        go_on()
        rows = joined_rows([*before, *(part.rows for _, part in numbered)])
        order = _by_id(hashes) if rows.ids is not None else _by_place(keys, part_of, place_of)
        go_on()
        return Merged(keys, rows.take(order), hashes[order], part_of[order], place_of[order])


NOTHING = Merged(
    (),
    Rows(0, None, None, None, {}, {}),
    np.empty(0, f"S{ID_BYTES}"),
    np.empty(0, np.int32),
    np.empty(0, np.int32),
)
"""An evaluation without parts."""


def _by_id(hashes: Array) -> Array:
    """Return the places of the first row of each id, in the order of the hashes."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def _by_place(keys: Sequence[str], part_of: Array, place_of: Array) -> Array:
    """Return the places of rows in the order of their parts' keys."""
    rank = np.empty(len(keys), np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return np.lexsort((place_of, rank[part_of]))
