"""The shapes of results, and why operands do not fit, without computing anything.

A run on torch's `meta` device would take 0.3 to 9 ms for each operation with its gradient, and 4 s to import its compiler first; these
rules take 2 µs. Tests compare them with what torch computes.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

Shape = tuple[int, ...]
ShapeRule = Callable[[str, Sequence[Shape], Sequence[Any]], Shape]
"""Takes the name of an operation, the shapes of its operands and its literals; raises `Misfit`."""
MOST_DIMS = 24
"""Most dimensions of a result: torch has fewer than 64 in some operations, and 25 on some devices."""
MOST_ELEMENTS = 2**53
"""Most elements of a result, dimensions of size 0 left out: beyond, torch's strides overflow."""
_WRITTEN = 8
"""Shapes that an error has at most."""


class Misfit(Exception):
    """Operands that do not fit together; the message is the sentence for the client."""


def written(shapes: Sequence[Shape]) -> str:
    """Write shapes, the first few of many.

    >>> written([(2, 3), ()])
    '[2, 3] and []'
    """
    more = [f"{len(shapes) - _WRITTEN} more"] if len(shapes) > _WRITTEN else []
    return " and ".join([*(str(list(shape)) for shape in shapes[:_WRITTEN]), *more])


def same(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """The result has the shape of the operand."""
    return shapes[0]


def broadcast(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Sizes from the right are equal, or 1.

    >>> broadcast("+", [(2, 1), (3,), ()], [])
    (2, 3)
    """
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    sizes = [1] * max(map(len, shapes))
    for shape in shapes:
        offset = len(sizes) - len(shape)
        for place, size in enumerate(shape, offset):
            if sizes[place] == 1:
                sizes[place] = size
            elif size not in (1, sizes[place]):
                raise Misfit(f"Expected shapes that broadcast for {name}; got {written(shapes)}.")
    return tuple(sizes)


def reduced(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Drop a dimension, or all; ``literals`` are the dimension and whether it stays with size 1."""
    [shape], (dim, keepdim) = shapes, literals[-2:]
    if dim is None:
        return ()
    dim = place(name, shape, dim)
    if not shape:
        return ()
    return (*shape[:dim], *((1,) if keepdim else ()), *shape[dim + 1 :])


def of_some(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Reduce elements of which there has to be one."""
    found, dim = reduced(name, shapes, literals), literals[0]
    if shapes[0] and not (prod(shapes[0]) if dim is None else shapes[0][dim]):
        raise Misfit(f"Expected elements for {name}; got the shape {written(shapes)}.")
    return found


def normed(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Reduce elements, of which there has to be one for a negative order."""
    negative = literals[0] is not None and literals[0] < 0
    return (of_some if negative else reduced)(name, shapes, literals[1:])


def along(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """The operand's shape, which has the dimension."""
    place(name, shapes[0], literals[0])
    return shapes[0]


def place(name: str, shape: Shape, dim: int) -> int:
    """Return the place of a dimension, from 0. A number has one, as in torch."""
    rank = max(len(shape), 1)
    if not -rank <= dim < rank:
        raise Misfit(f"Expected a dim from {-rank} to {rank - 1} for the shape {list(shape)}; got {dim}.")
    return dim % rank


def product(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """The product of matrices, or stacks of them, and vectors."""
    left, right = shapes
    if not left or not right or left[-1] != inner_size(right):
        detail = "Expected as many columns on the left as rows on the right"
        raise Misfit(f"{detail} of @; got {written(shapes)}.")
    try:
        stacks = broadcast(name, [left[:-2], right[:-2]], literals)
    except Misfit:
        raise Misfit(f"Expected stacks that broadcast for @; got {written(shapes)}.") from None
    return (*stacks, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


def inner_size(right: Shape) -> int:
    """Return the number of rows of the right operand of a product."""
    return right[-2 if len(right) > 1 else -1]


def dot(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """The product of two vectors."""
    left, right = shapes
    if len(left) != 1 or left != right:
        raise Misfit(f"Expected two vectors of one length for dot; got {written(shapes)}.")
    return ()


def with_classes(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """A last dimension for the classes."""
    return (*shapes[0], literals[0])


def gather(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """The shape of the index."""
    x, index = shapes
    dim = place(name, x, literals[0])
    if max(len(x), 1) != max(len(index), 1) or any(
        b > a for n, (a, b) in enumerate(zip(x or (1,), index or (1,), strict=True)) if n != dim
    ):
        detail = "Expected an index of the rank of x, and no longer in other dimensions, for gather"
        raise Misfit(f"{detail}; got {written(shapes)}.")
    if prod(index) and not (x[dim] if x else 1):
        raise Misfit(f"Expected elements along dim {literals[0]} of gather; got {written(shapes)}.")
    return index


def reshape(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """The sizes, of which one may be -1."""
    count, known = prod(shapes[0]), prod(size for size in literals if size != -1)
    if -1 in literals:
        fits = known > 0 and count % known == 0
        sizes = tuple(count // known if size == -1 else size for size in literals) if fits else ()
    else:
        fits, sizes = known == count, tuple(literals)
    if not fits:
        detail = f"Expected sizes of {count} elements for the shape {written(shapes)}"
        raise Misfit(f"{detail}; got {written([tuple(literals[: MOST_DIMS + 1])])}.")
    return sizes


def transpose(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Swap two dimensions."""
    [shape] = shapes
    first, second = (place(name, shape, dim) for dim in literals)
    sizes = list(shape)
    if sizes:
        sizes[first], sizes[second] = sizes[second], sizes[first]
    return tuple(sizes)


def concat(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Add the sizes along a dimension. As in torch, empty vectors are left out."""
    joined = [shape for shape in shapes if shape != (0,)] or [(0,)]
    if () in joined:
        raise Misfit(f"Expected tensors with dimensions for concat; got {written(shapes)}.")
    dim = place(name, joined[0], literals[0] or 0)
    others = {(*shape[:dim], *shape[dim + 1 :]) for shape in joined}
    if len(others) > 1 or len({len(shape) for shape in joined}) > 1:
        detail = f"Expected shapes that are equal but for dim {dim} for concat"
        raise Misfit(f"{detail}; got {written(shapes)}.")
    return (*joined[0][:dim], sum(shape[dim] for shape in joined), *joined[0][dim + 1 :])


def indexed(name: str, shapes: Sequence[Shape], literals: Sequence[Any]) -> Shape:
    """Apply integers, slices, `...` and None."""
    [shape], [key] = shapes, literals
    taken = sum(part is not None and part is not ... for part in key)
    left = len(shape) - taken
    if left < 0:
        raise Misfit(f"Expected at most {len(shape)} indices for the shape {list(shape)}; got {taken}.")
    sizes: list[int] = []
    rest = list(shape)
    for part in key if ... in key else (*key, ...):
        if part is None:
            sizes.append(1)
        elif part is ...:
            sizes += rest[:left]
            rest = rest[left:]
        elif isinstance(part, slice):
            sizes.append(len(range(*part.indices(rest.pop(0)))))
        else:
            _check_index(part, rest.pop(0), shape)
    return tuple(sizes)


def _check_index(index: int, size: int, shape: Shape) -> None:
    """Check an integer of an index."""
    if not -size <= index < size:
        expected = f"an index from {-size} to {size - 1}" if size else "no index into a dimension of size 0"
        raise Misfit(f"Expected {expected} for the shape {list(shape)}; got {index}.")
