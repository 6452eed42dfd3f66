"""What makes a row the same row: hashes of its id, and of its content as it was decoded, whatever format it came in."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from service.catalogue.table import Array
from service.evaluations.rows import Categories

Hashes = NDArray[np.uint64]
ID_BYTES = 16
"""Bytes of the hash of an id: two of a billion ids have the same with a probability of 10^-21."""
CONTENT_BYTES = 8
BLOCK = 1 << 20
"""Elements hashed at once."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def id_hashes(ids: Sequence[bytes]) -> Array:
    """Return the hash of each id, ``[N]`` of dtype S16: as such, numpy sorts and searches them."""
    digests = b"".join([blake2b(one, digest_size=ID_BYTES).digest() for one in ids])
    return np.frombuffer(digests, f"S{ID_BYTES}")


def content_hashes(columns: Mapping[str, Array | Categories | Sequence[bytes]], count: int) -> Hashes:
    """Return the hash of each row's values in all columns: numbers ``[N, ...]`` as float64, labels, and texts.

    A row's hash does not depend on other rows, or on the dtype that its numbers came in.
    """
    found = np.zeros(count, np.uint64)
    for name in sorted(columns):
        column = columns[name]
        found += _mixed(_of(column) ^ _salt(name))
    return found


def place_hashes(key: str, count: int) -> Array:
    """Return the hash of each row of a part that is identified by the part's key and its place, ``[N]`` of dtype S16."""
    lanes = [_mixed(np.arange(count, dtype=np.uint64) * GOLDEN + _salt(f"{lane}/{key}")) for lane in range(2)]
    return np.stack(lanes, axis=1).view(f"S{ID_BYTES}").reshape(count)


def keys_of_hashes(hashes: Array) -> Hashes:
    """Return the first half of each id's hash as a number."""
    return np.frombuffer(np.ascontiguousarray(hashes).data, np.uint64)[::2]


def digest_of(ids: Array, contents: Hashes, *, ordered: bool) -> bytes:
    """Return the digest of a part from the hashes of its rows; their order matters only if they are ``ordered``."""
    pairs = np.empty((len(contents), ID_BYTES + CONTENT_BYTES), np.uint8)
    pairs[:, :ID_BYTES] = np.frombuffer(np.ascontiguousarray(ids).data, np.uint8).reshape(-1, ID_BYTES)
    pairs[:, ID_BYTES:] = contents.astype("<u8").view(np.uint8).reshape(-1, CONTENT_BYTES)
    if not ordered:
        pairs = pairs[np.lexsort((contents, ids))]
    return blake2b(pairs.tobytes(), digest_size=ID_BYTES).digest()


def _of(column: Array | Categories | Sequence[bytes]) -> Hashes:
    """Return the hash of each row's value in a column."""
    if isinstance(column, Categories):
        return _of_texts([text.encode() for text in column.texts])[column.places]
    return _of_numbers(column) if isinstance(column, np.ndarray) else _of_texts(column)


def _of_numbers(column: Array) -> Hashes:
    """Return the hash of the numbers in each row."""
    width = int(np.prod(column.shape[1:]))
    rows = column.reshape(len(column), width)
    places = _mixed(np.arange(1, width + 1, dtype=np.uint64) * GOLDEN)
    found = np.empty(len(column), np.uint64)
    step = max(1, BLOCK // max(1, width))
    for start in range(0, len(column), step):
        piece = rows[start : start + step]
        bits = _mixed(_bits(piece) ^ places)
        found[start : start + step] = bits.sum(1, dtype=np.uint64)
    return found


def _bits(numbers: Array) -> Hashes:
    """Return the bits of numbers as float64; those of integers that float64 does not have, exactly."""
    floats = numbers.astype(np.float64) + 0.0
    floats[np.isnan(floats)] = np.nan
    bits = floats.view(np.uint64)
    large = np.abs(floats) >= 2.0**53
    if numbers.dtype == np.int64 and large.any():
        # added, so that equal numbers have equal bits in both dtypes
        rest = numbers[large] - np.minimum(floats[large], 2.0**63 - 1024).astype(np.int64)
        bits[large] += _mixed(rest.astype(np.uint64))
    return bits


def _of_texts(texts: Iterable[bytes]) -> Hashes:
    """Return the hash of each text."""
    digests = b"".join([blake2b(one, digest_size=CONTENT_BYTES).digest() for one in texts])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _salt(name: str) -> np.uint64:
    """Return what tells a column from others."""
    return np.uint64(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))


def _mixed(values: Hashes) -> Hashes:
    """Mix the bits of each value, as splitmix64 does."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
