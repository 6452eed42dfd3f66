"""Dimension patterns: how the shapes of a loss's tensors hang together.

A pattern is a string such as ``"N C ..."``: a name stands for one size that is the same wherever the name
returns, a number for itself, a number before a name (``2N``) for a multiple, and ``...`` for any run of
further sizes.
"""

from collections.abc import Mapping, Sequence
from functools import cache

Shape = tuple[int, ...]
Sizes = Mapping[str, Shape]
"""What each name of a pattern stands for. ``...`` may hold any number of sizes, a name holds one."""


@cache
def split(dims: str) -> tuple[str, ...]:
    """Return the parts of a pattern.

    >>> split("N C ...")
    ('N', 'C', '...')
    """
    return tuple(dims.split())


@cache
def names(dims: str) -> frozenset[str]:
    """Return the names in a pattern, ``...`` among them, numbers not.

    >>> sorted(names("2N C 4 ..."))
    ['...', 'C', 'N']
    """
    return frozenset(name for part in split(dims) if (name := part.lstrip("0123456789")))


def match(dims: str, shape: Sequence[int], sizes: Sizes) -> Sizes | None:
    """Return ``sizes`` extended by what ``shape`` says of ``dims``, or None where they disagree.

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
    """Match ``dims`` with an empty tensor of unknown rank, as a JSON ``[]`` is one.

    The first size that nothing else fixes is 0, the others are the least they may be.

    >>> match_empty("N D", {}, {})
    {'N': (0,), 'D': (1,)}
    """
    found, free = dict(sizes), 0
    for part in split(dims):
        if not part.isdigit() and part not in found:
            if part == "..." and dims != "...":
                found[part] = ()
            else:
                found[part] = (least.get(part, 1) if free else 0,)
                free += 1
    return found if 0 in expand(dims, found) else None


def expand(dims: str, sizes: Sizes) -> Shape:
    """Return the shape that ``dims`` has once its names are bound to ``sizes``.

    >>> expand("2N ...", {"N": (3,), "...": (8, 8)})
    (6, 8, 8)
    """
    shape: list[int] = []
    for part in split(dims):
        name = part.lstrip("0123456789")
        factor = int(part.removesuffix(name) or 1)
        shape += [factor * size for size in sizes[name]] if name else [factor]
    return tuple(shape)


def show(dims: str) -> str:
    """Write a pattern as messages show it.

    >>> show("N C ...")
    '[N, C, ...]'
    """
    return f"[{', '.join(split(dims))}]"


def show_sizes(sizes: Sizes) -> str:
    """Say what is known of the sizes, in brackets, or nothing.

    >>> show_sizes({"N": (2,), "...": (8, 8)})
    ' (N = 2, ... = 8 x 8)'
    """
    known = ", ".join(f"{name} = {' x '.join(map(str, size))}" for name, size in sizes.items() if size)
    if sizes and not known:
        known = "a single number"
    return f" ({known})" if known else ""
