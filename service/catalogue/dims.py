"""Dimension patterns: how the shapes of a loss's tensors relate.

A pattern is a string such as ``"N C ..."``. A name stands for one size, the same wherever it occurs, and a number for
itself. ``2N`` is a multiple, ``C-1`` a difference, ``D/64`` a quotient, rounded up. ``...`` is any run of further sizes.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache

Shape = tuple[int, ...]
Sizes = Mapping[str, Shape]
"""The sizes of each name in a pattern: any number for ``...``, one for others."""

_PART = re.compile(r"(?P<factor>\d*)(?P<name>.*?)(?:-(?P<less>\d+))?(?:/(?P<share>\d+))?")


@cache
def split(dims: str) -> tuple[str, ...]:
    """Return the parts of a pattern.

    >>> split("N C ...")
    ('N', 'C', '...')
    """
    return tuple(dims.split())


@cache
def names(dims: str) -> frozenset[str]:
    """Return the names in a pattern, including ``...``, without numbers.

    >>> sorted(names("2N C-1 4 ..."))
    ['...', 'C', 'N']
    """
    return frozenset(name for part in split(dims) if (name := _read(part)[1]))


def match(dims: str, shape: Sequence[int], sizes: Sizes) -> Sizes | None:
    """Return ``sizes`` extended by the sizes in ``shape``, or None if they disagree.

    >>> match("N C ...", [2, 3, 8, 8], {})
    {'N': (2,), 'C': (3,), '...': (8, 8)}
    >>> match("N ...", [5, 8, 8], {"N": (2,)}) is None
    True
    """
    parts = split(dims)
    rest = len(shape) - len(parts) + 1
    if rest < 0 or (rest != 1 and "..." not in parts):
        return None
    found, position = dict(sizes), 0
    for part in parts:
        width = rest if part == "..." else 1
        size = tuple(shape[position : position + width])
        expected = (int(part),) if part.isdigit() else found.setdefault(part, size)
        if size != expected:
            return None
        position += width
    return found


def match_empty(dims: str, sizes: Sizes, least: Mapping[str, int]) -> Sizes | None:
    """Match ``dims`` with an empty tensor of unknown rank, such as a JSON ``[]``.

    The first size that is not fixed is 0, the others are as small as allowed.

    >>> match_empty("N D", {}, {})
    {'N': (0,), 'D': (1,)}
    >>> match_empty("... 4", {}, {})
    {'...': (0,)}
    """
    found, free = dict(sizes), 0
    for part in split(dims):
        if not part.isdigit() and part not in found:
            found[part] = () if free and part == "..." else (least.get(part, 1) if free else 0,)
            free += 1
    return found if 0 in expand(dims, found) else None


def expand(dims: str, sizes: Sizes) -> Shape:
    """Return the shape of ``dims`` for given ``sizes``.

    >>> expand("2N ...", {"N": (3,), "...": (8, 8)})
    (6, 8, 8)
    >>> expand("N C-1", {"N": (3,), "C": (5,)})
    (3, 4)
    >>> expand("N D/64", {"N": (3,), "D": (100,)})
    (3, 2)
    """
    shape: list[int] = []
    for part in split(dims):
        factor, name, less, share = _read(part)
        shape += [-(-(factor * size - less) // share) for size in sizes[name]] if name else [factor]
    return tuple(shape)


@cache
def _read(part: str) -> tuple[int, str, int, int]:
    """Return the factor, the name, the difference and the quotient of a part; a plain name has 1, 0 and 1."""
    found = _PART.fullmatch(part)
    assert found is not None
    factor, name, less, share = found["factor"], found["name"], found["less"], found["share"]
    return int(factor or 1), name, int(less or 0), int(share or 1)


def show(dims: str) -> str:
    """Format a pattern for messages.

    >>> show("N C ...")
    '[N, C, ...]'
    """
    return f"[{', '.join(split(dims))}]"


def show_sizes(sizes: Sizes) -> str:
    """Format known sizes for messages, in brackets; return an empty text if there are none.

    >>> show_sizes({"N": (2,), "...": (8, 8)})
    ' (N = 2, ... = 8 x 8)'
    """
    known = ", ".join(f"{name} = {' x '.join(map(str, size))}" for name, size in sizes.items() if size)
    if sizes and not known:
        known = "a single number"
    return f" ({known})" if known else ""
