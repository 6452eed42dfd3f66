"""The ids that an evaluation has, with the hashes of their contents: what a new part is compared with before it is stored."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.catalogue.table import Array
from service.evaluations.identity import CONTENT_BYTES, ID_BYTES, Hashes

MOST_SHARE = 2
"""A run is merged with the one before it unless that one is more than this many times as long: there are few runs."""


class Compared(NamedTuple):
    """The rows of a part, compared with an evaluation: which are new, and which have an id with another content."""

    new: Array
    differs: Array


class Run(NamedTuple):
    """Ids in order, and the hash of each one's content."""

    ids: Array
    contents: Hashes


@dataclass(frozen=True, slots=True)
class Known:
    """The ids of the first ``parts`` parts of an evaluation, in runs of falling length. Immutable."""

    parts: int = 0
    runs: tuple[Run, ...] = ()

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        return sum(len(run.ids) for run in self.runs) * (ID_BYTES + CONTENT_BYTES)

    def compare(self, ids: Array, contents: Hashes) -> Compared:
        """Compare the rows of a part with all that are known, and with each other; the first row of an id is the new one."""
        order = np.argsort(ids, kind="stable")
        ordered, hashes = ids[order], contents[order]
        first = np.ones(len(ids), np.bool_)
        first[1:] = ordered[1:] != ordered[:-1]
        # the content of the first row with the same id
        expected = hashes[np.flatnonzero(first)[np.cumsum(first) - 1]] if len(ids) else hashes
        new = first.copy()
        for run in self.runs:
            places = np.minimum(np.searchsorted(run.ids, ordered), len(run.ids) - 1)
            there = run.ids[places] == ordered
            new &= ~there
            expected = np.where(there, run.contents[places], expected)
        found = Compared(np.empty_like(new), np.empty_like(new))
        found.new[order], found.differs[order] = new, hashes != expected
        return found

    def extended(self, ids: Array, contents: Hashes) -> "Known":
        """Return the ids of one more part, of which these are new."""
        if not len(ids):
            return Known(self.parts + 1, self.runs)
        order = np.argsort(ids, kind="stable")
        last, runs = Run(ids[order], contents[order]), [*self.runs]
        while runs and len(runs[-1].ids) <= MOST_SHARE * len(last.ids):
            last = _merged(runs.pop(), last)
        return Known(self.parts + 1, (*runs, last))


def _merged(one: Run, other: Run) -> Run:
    """Merge two runs."""
    ids = np.concatenate([one.ids, other.ids])
    order = np.argsort(ids, kind="stable")
    return Run(ids[order], np.concatenate([one.contents, other.contents])[order])
