"""Alignments: the edit distance of two sequences, and the length of their longest common subsequence.

A row of the table of distances is kept in the bits of integers, so a step costs a few operations, however long it is.
"""

from collections.abc import Hashable, Sequence


def aligning(first: int, second: int) -> int:
    """Estimate the work to align sequences of these lengths, in units of 110 ns."""
    return second * (12 + first // 150)


def edits(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return the least number of insertions, deletions and substitutions that turn one sequence into the other.

    It is Myers' algorithm (1999) as Hyyrö (2003) has it, without its words of 64 bits.

    >>> edits("kitten", "sitting")
    3
    """
    first, second = _differing(first, second)
    if not first or not second:
        return len(first) + len(second)
    places, full, last = _places(first), (1 << len(first)) - 1, 1 << (len(first) - 1)
    # bits of the places where the distance is one more, or one less, than at the place before
    more, less, distance = full, 0, len(first)
    for item in second:
        equal = places.get(item, 0)
        steady = equal | less
        diagonal = ((equal & more) + more) ^ more | equal
        up = less | (full & ~(diagonal | more))
        down = more & diagonal
        distance += (up & last > 0) - (down & last > 0)
        up = up << 1 | 1
        more = (down << 1 | ~(steady | up)) & full
        less = up & steady & full
    return distance


def common(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return the length of the longest subsequence of both (Hyyrö, 2004).

    >>> common("kitten", "sitting")
    4
    """
    places, full = _places(first), (1 << len(first)) - 1
    left = full
    for item in second:
        found = left & places.get(item, 0)
        left = ((left + found) | (left - found)) & full
    return len(first) - left.bit_count()


def _places(items: Sequence[Hashable]) -> dict[Hashable, int]:
    """Return a bit for each place of an item."""
    found: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item, []).append(place)
    return {item: _bits(places, len(items)) for item, places in found.items()}


def _bits(places: list[int], length: int) -> int:
    """Return an integer with a bit at each place; one by one that would take time in proportion to the square."""
    held = bytearray(length // 8 + 1)
    for place in places:
        held[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(held, "little")


def _differing(
    first: Sequence[Hashable], second: Sequence[Hashable]
) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    """Return what is left of two sequences without their common start and end."""
    shorter, start, end = min(len(first), len(second)), 0, 0
    while start < shorter and first[start] == second[start]:
        start += 1
    while end < shorter - start and first[-1 - end] == second[-1 - end]:
        end += 1
    return first[start : len(first) - end], second[start : len(second) - end]
