"""Intervals by the Poisson bootstrap: each row is counted a random number of times that its id alone decides.

The counts are hashed from the seed, the number of the replicate and the row's key, so they do not depend on the order or the
partition of the rows, and two results over the same ids are compared with the same counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import exp, factorial

import numpy as np

from service.catalogue.rounds import rounds
from service.catalogue.table import Array

REPLICATES = 200
"""Replicates by default."""
MOST_REPLICATES = 10_000
_MOST_COUNT = 12
"""Largest count of a row; Poisson's distribution exceeds it once in 10^10 rows."""
_CUMULATIVE = np.cumsum([exp(-1) / factorial(count) for count in range(_MOST_COUNT)])
_THRESHOLDS = [np.uint64(min(int(share * 2.0**64), 2**64 - 1)) for share in _CUMULATIVE]
_STEP = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Asked:
    """The interval that a request asks for: its level, the number of replicates, and the seed."""

    level: float
    replicates: int = REPLICATES
    seed: int = 0


def keys_of(ids: Sequence[object]) -> Array:
    """Return the key of each id, uint64."""
    digests = b"".join([blake2b(repr(one).encode(), digest_size=8).digest() for one in ids])
    return np.frombuffer(digests, np.uint64)


def keys_of_unit(column: Array) -> Array:
    """Return the key of each row from a column whose equal values are drawn together."""
    units, places = np.unique(column, return_inverse=True)
    return keys_of(units.tolist())[places]


def counts(keys: Array, asked: Asked) -> Iterator[Array]:
    """Yield how often each row counts in each replicate, float64, with mean 1."""
    for replicate in rounds(asked.replicates):
        mixed = _mixed(keys ^ np.uint64(_salt(asked.seed, replicate)))
        found = np.zeros(len(keys), np.uint8)
        for threshold in _THRESHOLDS:
            found += mixed >= threshold
        yield found.astype(np.float64)


def _salt(seed: int, replicate: int) -> int:
    """Return a number for a replicate."""
    return int.from_bytes(blake2b(b"%d/%d" % (seed, replicate), digest_size=8).digest(), "little")


def _mixed(numbers: Array) -> Array:
    """Mix the bits of 64-bit numbers (splitmix64, Steele et al. 2014)."""
    mixed = numbers + np.uint64(_STEP)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))
