"""The operations of the expression language: how each is called, what it computes, what it accepts."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from service.engine.expression.shapes import (
    ShapeRule,
    along,
    broadcast,
    concat,
    dot,
    gather,
    indexed,
    normed,
    of_some,
    product,
    reduced,
    reshape,
    same,
    transpose,
    with_classes,
)

Scalar = bool | int | float
Compute = Callable[..., Tensor]
KindRule = Callable[[Sequence[str]], str]
"""Takes the kinds of the operands."""
MASKS, INTEGERS, NUMBERS = "masks", "integers", "numbers"
"""Kinds of tensors: bool, int64, which only arithmetic on masks gives, and floating."""
_RANKS = {MASKS: 0, INTEGERS: 1, NUMBERS: 2}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function.

    ``kind`` is ``tensor``, ``dim``, ``flag`` (`True` or `False`), ``count`` (a literal from 1), ``size`` (from -1) or ``order`` (of a norm).
    ``keyword``: whether it may be named. ``many``: takes all the other positional arguments.
    """

    name: str
    kind: str = "tensor"
    required: bool = True
    keyword: bool = False
    many: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """A function or operator.

    ``make`` takes the arguments that are literals, and returns what computes the result from the tensors. ``shape`` and ``kind`` are those
    of the result. ``refuses`` are kinds of tensors that it does not accept. ``floating``: masks and integers become numbers first.
    ``scalars``: constants stay numbers of Python, and not tensors. ``folds``: constants give a constant. ``typed``: it
    takes the dtype of numbers. ``weight``: units of work for an element of its largest operand or result.
    """

    name: str
    parameters: tuple[Parameter, ...]
    make: Callable[..., Compute]
    shape: ShapeRule
    kind: KindRule
    refuses: frozenset[str] = frozenset()
    floating: bool = False
    scalars: bool = False
    folds: bool = False
    typed: bool = False
    weight: float = 1.0


X, Y = Parameter("x"), Parameter("y")
DIM = Parameter("dim", "dim", keyword=True)
ANY_DIM = Parameter("dim", "dim", required=False, keyword=True)
ORDER = Parameter("p", "order", required=False)
LEAST = Parameter("min", required=False, keyword=True)
MOST = Parameter("max", required=False, keyword=True)
KEEPDIM = Parameter("keepdim", "flag", required=False, keyword=True)
REDUCED = (X, ANY_DIM, KEEPDIM)
_ONLY_NUMBERS = frozenset({MASKS, INTEGERS})
_NO_MASKS = frozenset({MASKS})
_ONLY_MASKS = frozenset({NUMBERS, INTEGERS})


def kind_of(value: object) -> str:
    """Return the kind of a tensor or constant."""
    if isinstance(value, Tensor):
        if value.dtype is torch.bool:
            return MASKS
        return NUMBERS if value.is_floating_point() else INTEGERS
    return MASKS if isinstance(value, bool) else INTEGERS if isinstance(value, int) else NUMBERS


def as_number(value: Any, dtype: torch.dtype) -> Any:
    """Return a value whose masks and integers are numbers."""
    return value.to(dtype) if isinstance(value, Tensor) and not value.is_floating_point() else value


def _widest(kinds: Sequence[str]) -> str:
    """Return the kind to which all are promoted."""
    return max(kinds, key=_RANKS.__getitem__)


def _first(kinds: Sequence[str]) -> str:
    return kinds[0]


def _chosen(kinds: Sequence[str]) -> str:
    """Return the kind of what `where` chooses from."""
    return _widest(kinds[1:])


def _counted(kinds: Sequence[str]) -> str:
    """Return the kind of sums: masks are counted."""
    return INTEGERS if kinds[0] == MASKS else kinds[0]


def _numbers(kinds: Sequence[str]) -> str:
    return NUMBERS


def _masks(kinds: Sequence[str]) -> str:
    return MASKS


def _unary(name: str, compute: Compute, refuses: frozenset[str] = frozenset()) -> Operation:
    """Declare a function of one tensor that yields numbers for all that it accepts."""
    return Operation(name, (X,), lambda: compute, same, _numbers, refuses, floating=True, folds=True)


def _kept(
    name: str, compute: Compute, refuses: frozenset[str] = frozenset(), kind: KindRule = _first
) -> Operation:
    """Declare a function of one tensor that keeps integers."""
    return Operation(name, (X,), lambda: compute, same, kind, refuses, folds=True)


def _binary(
    name: str,
    compute: Compute,
    refuses: frozenset[str] = frozenset(),
    kind: KindRule = _widest,
    *,
    floating: bool = False,
    weight: float = 1.0,
) -> Operation:
    """Declare an operator of two operands."""
    return Operation(
        name,
        (X, Y),
        lambda: compute,
        broadcast,
        kind,
        refuses,
        floating=floating,
        scalars=True,
        folds=True,
        weight=weight,
    )


def _pair(name: str, compute: Compute, kind: KindRule = _widest, *, floating: bool = False) -> Operation:
    """Declare an elementwise function of two tensors."""
    # three tensors of the size of the result are needed for the gradients
    return Operation(
        name, (X, Y), lambda: compute, broadcast, kind, floating=floating, folds=True, weight=1.5
    )


def _reduced(name: str, part: int | None = None) -> Callable[..., Compute]:
    """Make a reduction over all elements or along a dimension, whose result may be a ``part`` of what torch returns."""
    compute = _of_torch(name)

    def make(dim: int | None = None, keepdim: bool | None = None) -> Compute:
        if dim is None:
            return compute
        kept = bool(keepdim)

        def along_dim(x: Tensor) -> Tensor:
            found: Any = compute(x, dim, kept)
            return found if part is None else found[part]

        return along_dim

    return make


def _along(name: str) -> Callable[..., Compute]:
    """Make a function along a dimension."""
    compute = _of_torch(name)

    def make(dim: int) -> Compute:
        def along_dim(x: Tensor) -> Tensor:
            return compute(x, dim)

        return along_dim

    return make


def _sign(name: str) -> Compute:
    return getattr(operator, name)


def _of_torch(name: str) -> Compute:
    return getattr(torch, name)


def _norm(p: float | None = None, dim: int | None = None, keepdim: bool | None = None) -> Compute:
    order, kept = 2.0 if p is None else float(p), bool(keepdim)
    vector_norm: Compute = vars(torch.linalg)["vector_norm"]

    def compute(x: Tensor) -> Tensor:
        return vector_norm(x, order, dim, kept)

    return compute


def _power(x: Any, y: Any) -> Tensor:
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.is_floating_point() != y.is_floating_point():
        # torch's gradient fails where one is a mask
        return as_number(x, y.dtype) ** y if y.is_floating_point() else x ** y.to(x.dtype)
    return x**y


def _clamp(x: Tensor, least: Tensor | float | None, most: Tensor | float | None) -> Tensor:
    bounds = [bound for bound in (least, most) if isinstance(bound, Tensor)]
    if bounds:
        # torch's gradient fails where a bound is larger than x
        x = _of_torch("broadcast_tensors")(x, *bounds)[0]
    return _of_torch("clamp")(x, least, most)


def _one_hot(classes: int) -> Compute:
    def compute(index: Tensor, dtype: torch.dtype) -> Tensor:
        # compared, not scattered: a class out of range gives zeros, and never an assertion on a GPU
        return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).to(dtype)

    return compute


def _gather(dim: int) -> Compute:
    def compute(x: Tensor, index: Tensor) -> Tensor:
        # clamped: an index out of range never reads other memory, and never fails an assertion on a GPU
        last = max(0, (x.shape[dim] if x.ndim else 1) - 1)
        return torch.gather(x, dim, index.to(torch.int64).clamp(0, last))

    return compute


def _reshape(*sizes: int) -> Compute:
    def compute(x: Tensor) -> Tensor:
        return x.reshape(sizes)

    return compute


def _transpose(dim0: int, dim1: int) -> Compute:
    def compute(x: Tensor) -> Tensor:
        return x.transpose(dim0, dim1)

    return compute


def _concat(dim: int | None = None) -> Compute:
    def compute(*tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim or 0)

    return compute


def _indexed(key: tuple[Any, ...]) -> Compute:
    def compute(x: Tensor) -> Tensor:
        return x[key]

    return compute


FUNCTIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        *(
            _unary(name, _of_torch(name))
            for name in (
                "exp",
                "expm1",
                "log",
                "log1p",
                "sqrt",
                "sin",
                "cos",
                "tan",
                "atan",
                "tanh",
                "sigmoid",
            )
        ),
        _unary("logsigmoid", functional.logsigmoid, _ONLY_NUMBERS),
        _unary("softplus", functional.softplus, _ONLY_NUMBERS),
        _kept("square", torch.square, kind=_counted),
        _kept("sign", torch.sign),
        *(_kept(name, _of_torch(name), _NO_MASKS) for name in ("abs", "relu", "floor", "round")),
        _pair("atan2", torch.atan2, _numbers, floating=True),
        _pair("minimum", torch.minimum),
        _pair("maximum", torch.maximum),
        Operation("sum", REDUCED, _reduced("sum"), reduced, _counted),
        Operation("mean", REDUCED, _reduced("mean"), reduced, _numbers, _ONLY_NUMBERS),
        Operation("prod", REDUCED, _reduced("prod"), reduced, _counted, weight=2.0),
        Operation("max", REDUCED, _reduced("max", 0), of_some, _first),
        Operation("min", REDUCED, _reduced("min", 0), of_some, _first),
        Operation("logsumexp", (X, DIM, KEEPDIM), _reduced("logsumexp"), reduced, _numbers, floating=True),
        Operation("softmax", (X, DIM), _along("softmax"), along, _numbers, _ONLY_NUMBERS),
        Operation("log_softmax", (X, DIM), _along("log_softmax"), along, _numbers, _ONLY_NUMBERS),
        Operation("cumsum", (X, DIM), _along("cumsum"), along, _counted),
        Operation("norm", (X, ORDER, ANY_DIM, KEEPDIM), _norm, normed, _numbers, _ONLY_NUMBERS),
        Operation("where", (Parameter("condition"), X, Y), lambda: torch.where, broadcast, _chosen),
        Operation("clamp", (X, LEAST, MOST), lambda: _clamp, broadcast, _widest, scalars=True),
        Operation(
            "one_hot", (X, Parameter("classes", "count")), _one_hot, with_classes, _numbers, typed=True
        ),
        Operation("gather", (X, Parameter("index"), DIM), _gather, gather, _first),
        Operation("reshape", (X, Parameter("sizes", "size", many=True)), _reshape, reshape, _first),
        Operation(
            "transpose",
            (X, Parameter("dim0", "dim"), Parameter("dim1", "dim")),
            _transpose,
            transpose,
            _first,
        ),
        Operation("concat", (Parameter("tensors", many=True), ANY_DIM), _concat, concat, _widest),
        Operation("detach", (X,), lambda: torch.detach, same, _first),
        Operation("dot", (X, Y), lambda: torch.dot, dot, _numbers, _ONLY_NUMBERS),
    )
}
"""The functions by name."""

OPERATORS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        _binary("+", _sign("add")),
        _binary("-", _sign("sub"), _NO_MASKS),
        _binary("*", _sign("mul")),
        _binary("/", _sign("truediv"), kind=_numbers, floating=True),
        _binary("**", _power, weight=1.5),
        *(
            _binary(name, _sign(word), kind=_masks)
            for name, word in (
                ("<", "lt"),
                ("<=", "le"),
                (">", "gt"),
                (">=", "ge"),
                ("==", "eq"),
                ("!=", "ne"),
            )
        ),
        _binary("&", _sign("and_"), _ONLY_MASKS, _masks),
        _binary("|", _sign("or_"), _ONLY_MASKS, _masks),
        Operation("@", (X, Y), lambda: _sign("matmul"), product, _numbers, _ONLY_NUMBERS),
    )
}
"""The operators of two operands by their signs."""

NEGATIVE = _kept("-", torch.neg, _NO_MASKS)
INVERTED = _kept("~", torch.bitwise_not, _ONLY_MASKS)
INDEXED = Operation("[]", (X,), _indexed, indexed, _first)
INDEXING: Mapping[str, int] = {"one_hot": 0, "gather": 1}
"""Functions of an index, and its place among their tensors."""
MOVING = frozenset({"[]", "reshape", "transpose", "concat", "detach"})
"""Operations that leave the elements as they are: an index may pass them."""
