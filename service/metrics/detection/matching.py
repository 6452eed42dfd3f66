"""Matching: the detections in an image take true objects, the surest detection first.

All thresholds of overlap and all ranges of area are matched at once, as the bits of integers: bit ``area * 10 + threshold``.
"""

from collections.abc import Callable, Sequence

import numpy as np

from service.catalogue.rounds import go_on
from service.catalogue.table import Array
from service.metrics.detection.masks import parts

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The overlaps from which on a detection may match."""
AREAS = {"": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""The ranges of area, in pixels, both inclusive."""
ALL = (1 << len(THRESHOLDS) * len(AREAS)) - 1
_EACH_AREA = sum(1 << len(THRESHOLDS) * place for place in range(len(AREAS)))


def inside(areas: Array) -> Array:
    """Return a bit for each range of area that an object is in."""
    found = np.zeros(len(areas), np.int64)
    for place, (low, high) in enumerate(AREAS.values()):
        found |= ((areas >= low) & (areas <= high)).astype(np.int64) << place
    return found


def spread(areas: Array) -> Array:
    """Return bits for all thresholds of each range of area from a bit for each range."""
    found = np.zeros(len(areas), np.int64)
    for place in range(len(AREAS)):
        found |= np.where(areas >> place & 1, (1 << len(THRESHOLDS)) - 1, 0) << len(THRESHOLDS) * place
    return found


def near_pairs(
    predicted: Array, true: Array, overlaps: Callable[[Array, Array], Array]
) -> tuple[Array, Array, Array]:
    """Return pairs of objects with equal keys that overlap by at least the lowest threshold, and their overlaps.

    ``overlaps`` gets the places of the objects of pairs.
    """
    order = np.argsort(true, kind="stable")
    keys = true[order]
    first = np.searchsorted(keys, predicted, "left")
    counts = np.searchsorted(keys, predicted, "right") - first
    found: list[tuple[Array, Array, Array]] = []
    for some in parts(counts + 1):
        go_on()
        count = counts[some]
        ends = np.cumsum(count)
        within = np.arange(int(ends[-1])) - np.repeat(ends - count, count)
        i: Array = np.repeat(np.arange(len(counts))[some], count)
        j = order[np.repeat(first[some], count) + within]
        overlap = overlaps(i, j)
        near = overlap >= THRESHOLDS[0]
        found.append((i[near], j[near], overlap[near]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    i, j, overlap = (np.concatenate(each) for each in zip(*found, strict=True))
    return i, j, overlap


def matched_as_coco(
    pairs: tuple[Array, Array, Array], counted: Array, crowd: Array, detections: int
) -> tuple[Array, Array]:
    """Return bits of what each detection matches: objects that count, and any.

    ``counted [true objects]`` has bits where an object counts; a ``crowd`` can be matched any number of times.
    Objects that count come before others, then the greatest overlap, then the last object.
    """
    i, j, overlap = pairs
    order = np.lexsort((-j, -overlap, i))
    i, j = i[order], j[order]
    reached = np.searchsorted(THRESHOLDS, overlap[order], "right")
    enough: list[int] = (((np.int64(1) << reached) - 1) * _EACH_AREA).tolist()
    objects, regular, crowds = _listed(j), _listed(counted[j]), _listed(crowd[j])
    free = [ALL] * len(counted)
    hits, matched = np.zeros(detections, np.int64), np.zeros(detections, np.int64)
    for detection, start, stop in _groups(i):
        wanted = ALL
        for pair in range(start, stop):
            if took := wanted & enough[pair] & regular[pair] & free[objects[pair]]:
                free[objects[pair]] ^= took
                wanted ^= took
        hits[detection] = ALL ^ wanted
        for pair in range(start, stop):
            left = wanted & enough[pair] & ~regular[pair]
            if took := left if crowds[pair] else left & free[objects[pair]]:
                free[objects[pair]] &= ~took
                wanted ^= took
        matched[detection] = ALL ^ wanted
    return hits, matched


def matched_as_voc(pairs: tuple[Array, Array, Array], counted: Array, detections: int) -> tuple[Array, Array]:
    """Return bits as `matched_as_coco`, of the lowest threshold alone.

    A detection looks at the object that it overlaps most, the first of equals; if that is taken, it matches nothing.
    """
    i, j, overlap = pairs
    order = np.lexsort((j, -overlap, i))
    i, j = i[order], j[order]
    free = np.ones(len(counted), bool)
    hits, matched = np.zeros(detections, np.int64), np.zeros(detections, np.int64)
    for detection, start, _ in _groups(i):
        wanted = j[start]
        if not counted[wanted]:
            matched[detection] = 1
        elif free[wanted]:
            free[wanted] = False
            hits[detection] = matched[detection] = 1
    return hits, matched


def _groups(places: Array) -> Sequence[tuple[int, int, int]]:
    """Return each of the ascending places with the range of its entries."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    stops = np.append(starts[1:], len(places))[: len(starts)]
    return [*zip(places[starts].tolist(), starts.tolist(), stops.tolist(), strict=True)]


def _listed(values: Array) -> list[int]:
    """Return values as Python's integers, which single operations handle faster."""
    return values.tolist()
