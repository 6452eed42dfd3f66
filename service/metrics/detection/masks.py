"""Masks as runs of pixels, never as pixels: decoding, drawing polygons, areas and intersections, as COCO computes them.

A mask's pixels are numbered down its columns, one column after another; a run is a range of these numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from service.catalogue.rounds import go_on
from service.catalogue.table import Array, Ragged

_MOST_DIGITS = 8
"""Most characters of a compressed run length: 40 bits."""
_SCALE = 5
"""Steps a pixel in which COCO draws outlines."""
_POINTS = 1 << 20
"""Points of outlines to draw at once."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Masks as runs on one axis, on which each mask's pixels follow those of the mask before.

    ``offsets``, ``heights`` and ``lengths [masks]``: the first pixel of a mask, the height of its image, its number of runs;
    ``starts`` and ``ends [runs]`` ascend.
    """

    offsets: Array
    heights: Array
    lengths: Array
    starts: Array
    ends: Array

    def areas(self) -> Array:
        """Return the pixels in each mask."""
        return sums_of(self.ends - self.starts, self.lengths)

    def boxes(self) -> Array:
        """Return the first and last column, and the first and last row, of each mask ``[masks, 4]``."""
        heights, offsets = (np.repeat(each, self.lengths) for each in (self.heights, self.offsets))
        start, end = self.starts - offsets, self.ends - offsets - 1
        left, right = start // heights, end // heights
        top = np.where(left == right, start % heights, 0)
        bottom = np.where(left == right, end % heights, heights - 1)
        # an empty mask ends before it begins
        boxes = np.tile(np.array([1, 0, 1, 0]), (len(self.lengths), 1))
        filled = self.lengths > 0
        first = (np.cumsum(self.lengths) - self.lengths)[filled]
        if len(first):
            boxes[filled, 0], boxes[filled, 1] = (
                np.minimum.reduceat(left, first),
                np.maximum.reduceat(right, first),
            )
            boxes[filled, 2], boxes[filled, 3] = (
                np.minimum.reduceat(top, first),
                np.maximum.reduceat(bottom, first),
            )
        return boxes


def runs_of(images: Sequence[Mapping[str, Any]], sizes: Sequence[Sequence[int]]) -> Runs:
    """Return the masks of all objects, one image after another; ``sizes`` are the heights and widths of the images."""
    masks = [mask for image in images for mask in image.get("masks", ())]
    of_mask = [size for image, size in zip(images, sizes, strict=True) for _ in image.get("masks", ())]
    size = np.array(of_mask, np.int64).reshape(-1, 2)
    pixels = size[:, 0] * size[:, 1]
    offsets = np.cumsum(pixels) - pixels
    coded = np.array([place for place, mask in enumerate(masks) if isinstance(mask, dict)], np.int64)
    counts, _ = decoded_counts([masks[place]["counts"] for place in coded.tolist()])
    flips = Ragged(counts.lengths, _running(counts))
    outlined = [
        (place, part) for place, mask in enumerate(masks) if not isinstance(mask, dict) for part in mask
    ]
    owners = np.array([place for place, _ in outlined], np.int64)
    outlines = _drawn([part for _, part in outlined], size[owners])
    pairs = [
        _paired(flips, pixels[coded], offsets[coded]),
        _paired(outlines, pixels[owners], offsets[owners]),
    ]
    starts, ends = (np.concatenate(sides) for sides in zip(*pairs, strict=True))
    starts, ends = _united(starts, ends)
    lengths = np.bincount(np.searchsorted(offsets, starts, "right") - 1, minlength=len(masks))
    return Runs(offsets, size[:, 0], lengths, starts, ends)


def decoded_counts(coded: Sequence[str | Sequence[int]]) -> tuple[Ragged, int | None]:
    """Return the run lengths of each mask from COCO's compressed string or a list, and the place of a broken one.

    >>> decoded_counts(["52203", [3, 2]])[0].values.tolist()
    [5, 2, 2, 2, 5, 3, 2]
    """
    texts = [one for one in coded if isinstance(one, str)]
    if len(texts) == len(coded):
        return _from_texts(texts)
    if not texts:
        lengths = np.fromiter(map(len, coded), np.int64, len(coded))
        return Ragged(lengths, np.array([count for one in coded for count in one], np.int64)), None
    found, broken = _from_texts(texts)
    places = np.array([isinstance(one, str) for one in coded], bool)
    lists, _ = decoded_counts([one for one in coded if not isinstance(one, str)])
    wrong = None if broken is None else int(np.flatnonzero(places)[broken])
    return _interleaved(places, found, lists), wrong


def _from_texts(texts: Sequence[str]) -> tuple[Ragged, int | None]:
    """Decode compressed strings: six bits a character, of which one says whether the number goes on.

    From the fourth on, a number is the difference from the one before the last.
    """
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(joined, np.uint32).astype(np.int64) - 48
    owners = np.repeat(np.arange(len(texts)), sizes)
    ends = (letters & 32) == 0
    last = np.cumsum(sizes)[sizes > 0] - 1
    starts = np.concatenate([[True], ends[:-1]])[: len(letters)]
    first = np.flatnonzero(starts)
    digit = np.arange(len(letters)) - np.repeat(first, np.diff(np.append(first, len(letters))))
    wrong = (letters < 0) | (letters > 63) | (digit >= _MOST_DIGITS)
    wrong[last] |= ~ends[last]
    if wrong.any():
        return Ragged(np.zeros(len(texts), np.int64), np.zeros(0, np.int64)), int(owners[wrong.argmax()])
    if not len(letters):
        return Ragged(np.zeros(len(texts), np.int64), np.zeros(0, np.int64)), None
    numbers = np.add.reduceat((letters & 31) << (5 * digit), first)
    negative = (letters[ends] & 16) != 0
    numbers -= np.where(negative, np.int64(1) << (5 * (digit[ends] + 1)), 0)
    lengths = np.bincount(owners[starts], minlength=len(texts))
    within = _within(lengths)
    for parity in (0, 1):
        # the first number stands alone, as nothing is ever subtracted from it
        chained = (within % 2 == parity) & (within > 0)
        chain = Ragged(np.bincount(owners[starts][chained], minlength=len(texts)), numbers[chained])
        numbers[chained] = _running(chain)
    return Ragged(lengths, numbers), None


def outlines(polygons: Sequence[Sequence[float]]) -> Array:
    """Return the pixels along the outline of each polygon."""
    corners, following, owners = _edges(polygons)
    return np.bincount(owners, weights=np.abs(corners - following).max(1, initial=0), minlength=len(polygons))


def extent(polygons: Sequence[Sequence[float]]) -> list[int]:
    """Return a height and a width in which polygons lie."""
    sides = (max((max(part[axis::2]) for part in polygons), default=0) for axis in (1, 0))
    return [max(1, int(np.ceil(side)) + 1) for side in sides]


def intersections(first: Runs, second: Runs, i: Array, j: Array) -> Array:
    """Return the pixels that the masks ``first[i]`` and ``second[j]`` share, for pairs of masks."""
    shared = np.zeros(len(i), np.int64)
    fewer = first.lengths[i] <= second.lengths[j]
    shared[fewer] = _shared(first, second, i[fewer], j[fewer])
    shared[~fewer] = _shared(second, first, j[~fewer], i[~fewer])
    return shared


def _shared(first: Runs, second: Runs, i: Array, j: Array) -> Array:
    """Return the pixels that pairs of masks share, by looking the runs of the first up among those of the second."""
    before = np.cumsum(second.ends - second.starts) - (second.ends - second.starts)
    begins = np.cumsum(first.lengths) - first.lengths
    shared = np.zeros(len(i), np.int64)
    for some in parts(first.lengths[i] + 1):
        go_on()
        lengths = first.lengths[i[some]]
        runs = np.repeat(begins[i[some]], lengths) + _within(lengths)
        # from the axis of the first masks to that of the second ones
        shift = np.repeat(second.offsets[j[some]] - first.offsets[i[some]], lengths)
        covered = _covered(first.ends[runs] + shift, second, before)
        covered -= _covered(first.starts[runs] + shift, second, before)
        shared[some] = sums_of(covered, lengths)
    return shared


def parts(costs: Array, most: int = 1 << 19) -> list[slice]:
    """Split a sequence into parts of about equal cost, so that the memory for one is bounded."""
    ends = np.cumsum(costs)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(most, total, most)).tolist()
    bounds = sorted({0, *cuts, len(costs)})
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _covered(places: Array, masks: Runs, before: Array) -> Array:
    """Return the pixels of all masks before each place; ``before`` are those before each run."""
    if not len(before):
        return np.zeros(len(places), np.int64)
    run = np.searchsorted(masks.starts, places, "right") - 1
    inside = np.minimum(places, masks.ends[run]) - masks.starts[run]
    return np.where(run < 0, 0, before[run] + inside)


def _paired(flips: Ragged, pixels: Array, offsets: Array) -> tuple[Array, Array]:
    """Return the runs between flips, two by two; a last one without a partner ends with its mask."""
    odd = flips.lengths % 2
    lengths = flips.lengths + odd
    ends = np.cumsum(lengths)
    places = np.repeat(ends - lengths, flips.lengths) + _within(flips.lengths)
    bounds = np.zeros(int(lengths.sum()), np.int64)
    bounds[places] = flips.values
    bounds[ends[odd == 1] - 1] = pixels[odd == 1]
    bounds += np.repeat(offsets, lengths)
    return bounds[::2], bounds[1::2]


def _united(starts: Array, ends: Array) -> tuple[Array, Array]:
    """Return ascending runs without overlaps that cover the same pixels."""
    filled = starts < ends
    starts, ends = starts[filled], ends[filled]
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    begins = np.ones(len(starts), bool)
    # runs that touch stay apart: the last of a mask may touch the first of the next
    begins[1:] = starts[1:] >= reach[:-1]
    last = np.append(begins[1:], True)[: len(starts)]
    return starts[begins], reach[last]


def _drawn(polygons: Sequence[Sequence[float]], sizes: Array) -> Ragged:
    """Return the pixels from which on a polygon's mask flips, ascending, as COCO draws them.

    An outline is walked in fifths of a pixel; where it enters a column of pixels in the middle, the pixel there flips.
    """
    corners, following, owners = _edges(polygons)
    corners, following = ((_SCALE * one + 0.5).astype(np.int64) for one in (corners, following))
    steps = np.abs(following - corners).max(1, initial=0) + 1
    found: list[tuple[Array, Array]] = []
    last = np.full((3, 1), -1)
    for some in parts(steps, _POINTS):
        go_on()
        walked = _walked(corners[some], following[some], owners[some])
        found.append(_flips(np.concatenate([last, walked], 1), sizes))
        last = walked[:, -1:]
    if not found:
        return Ragged(np.zeros(len(polygons), np.int64), np.zeros(0, np.int64))
    owner, flips = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.lexsort((flips, owner))
    return _odd(owner[order], flips[order], len(polygons))


def _edges(polygons: Sequence[Sequence[float]]) -> tuple[Array, Array, Array]:
    """Return the start and the end ``[edges, 2]`` of all edges, and their polygons ``[edges]``."""
    counts = np.fromiter((len(one) // 2 for one in polygons), np.int64, len(polygons))
    corners = np.array([number for one in polygons for number in one], np.float64).reshape(-1, 2)
    ends = np.cumsum(counts)
    following = np.arange(len(corners)) + 1
    following[ends - 1] = ends - counts
    return corners, corners[following], np.repeat(np.arange(len(polygons)), counts)


def _walked(start: Array, end: Array, owners: Array) -> Array:
    """Return the points along edges, one edge after another, and their polygons: ``[owner x y, points]``."""
    along = np.abs(end - start)
    flat = along[:, 0] >= along[:, 1]
    axis = np.where(flat, 0, 1)[:, None]
    backward = (np.take_along_axis(start, axis, 1) > np.take_along_axis(end, axis, 1))[:, 0]
    low, high = np.where(backward[:, None], end, start), np.where(backward[:, None], start, end)
    steps = along.max(1)
    rise = np.where(flat, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0])
    slope = rise / np.maximum(steps, 1)
    edge = np.repeat(np.arange(len(start)), steps + 1)
    step = _within(steps + 1)
    step = np.where(backward[edge], steps[edge] - step, step)
    base = np.where(flat, low[:, 1], low[:, 0])[edge]
    across = (base + slope[edge] * step + 0.5).astype(np.int64)
    main = np.where(flat, low[:, 0], low[:, 1])[edge] + step
    return np.stack([owners[edge], np.where(flat[edge], main, across), np.where(flat[edge], across, main)])


def _flips(points: Array, sizes: Array) -> tuple[Array, Array]:
    """Return the polygons and pixels of flips along a walk of points ``[owner x y, points]``."""
    owner: Array = points[0]
    x: Array = points[1]
    y: Array = points[2]
    entered = np.flatnonzero((x[1:] != x[:-1]) & (owner[1:] == owner[:-1]))
    before, after, owner = x[entered], x[entered + 1], owner[entered]
    column: Array = (np.where(after < before, after, after - 1) + 0.5) / _SCALE - 0.5
    row = (np.minimum(y[entered], y[entered + 1]) + 0.5) / _SCALE - 0.5
    height, width = sizes[owner].T
    inside: Array = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row, 0, height)).astype(np.int64)
    return owner[inside], (column.astype(np.int64) * height + row)[inside]


def _odd(owners: Array, flips: Array, count: int) -> Ragged:
    """Return sorted flips without pairs of equal ones, which undo each other."""
    first = np.ones(len(flips), bool)
    first[1:] = (flips[1:] != flips[:-1]) | (owners[1:] != owners[:-1])
    times = np.diff(np.append(np.flatnonzero(first), len(flips)))
    kept = np.flatnonzero(first)[times % 2 == 1]
    return Ragged(np.bincount(owners[kept], minlength=count), flips[kept])


def _running(numbers: Ragged) -> Array:
    """Return the running sums within each row."""
    total = np.cumsum(numbers.values)
    ends = np.cumsum(numbers.lengths)
    before = np.concatenate([[0], total])[ends - numbers.lengths]
    return total - np.repeat(before, numbers.lengths)


def sums_of(values: Array, lengths: Array) -> Array:
    """Return the sum of each row of integers."""
    total = np.concatenate([[0], np.cumsum(values)])
    ends = np.cumsum(lengths)
    return total[ends] - total[ends - lengths]


def _within(lengths: Array) -> Array:
    """Return the place of each entry in its row."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _interleaved(chosen: Array, first: Ragged, second: Ragged) -> Ragged:
    """Return the rows of two columns in the order of a mask, which is true for those of the first."""
    order = np.argsort(np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)]), kind="stable")
    lengths = np.concatenate([first.lengths, second.lengths])
    return Ragged(lengths, np.concatenate([first.values, second.values])).take(order)
