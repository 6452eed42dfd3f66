"""The operations of the expression language: how each is called, what it computes, what it accepts."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Scalar = bool | int | float
Compute = Callable[..., Tensor]
NUMBERS, MASKS, INTEGERS = "numbers", "masks", "integers"
"""Kinds of tensors: floating, bool, and integers, which only arithmetic on masks gives."""


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

    ``make`` takes the arguments that are no tensors, and returns what computes the result from the tensors. ``refuses`` are kinds of tensors
    that it does not accept. ``floating``: masks and integers become numbers first. ``rule``: how shapes have to fit. ``scalars``:
    whether constants stay numbers of Python, which do not change the dtype of the result. ``folds``: constants give a constant.
    """

    name: str
    parameters: tuple[Parameter, ...]
    make: Callable[..., Compute]
    refuses: frozenset[str] = frozenset()
    floating: bool = False
    rule: str = ""
    scalars: bool = False
    folds: bool = False
    typed: bool = False


X, Y = Parameter("x"), Parameter("y")
DIM = Parameter("dim", "dim", keyword=True)
ANY_DIM = Parameter("dim", "dim", required=False, keyword=True)
KEEPDIM = Parameter("keepdim", "flag", required=False, keyword=True)
REDUCED = (X, ANY_DIM, KEEPDIM)
BROADCAST = "shapes that broadcast"
_ONLY_NUMBERS = frozenset({MASKS, INTEGERS})
_NO_MASKS = frozenset({MASKS})


def kind_of(tensor: Tensor) -> str:
    """Return the kind of a tensor."""
    if tensor.dtype is torch.bool:
        return MASKS
    return NUMBERS if tensor.is_floating_point() else INTEGERS


def as_number(value: Any, dtype: torch.dtype) -> Any:
    """Return a value whose masks and integers are numbers."""
    return value.to(dtype) if isinstance(value, Tensor) and not value.is_floating_point() else value


def _unary(name: str, compute: Compute, refuses: frozenset[str] = frozenset()) -> Operation:
    """Declare a function of one tensor that yields numbers for anything that it accepts."""
    return Operation(name, (X,), lambda: compute, refuses, floating=not refuses, folds=True)


def _same(name: str, compute: Compute, refuses: frozenset[str] = frozenset()) -> Operation:
    """Declare a function of one tensor that keeps integers."""
    return Operation(name, (X,), lambda: compute, refuses, folds=True)


def _binary(
    name: str, compute: Compute, refuses: frozenset[str] = frozenset(), *, floating: bool = False
) -> Operation:
    """Declare an operator."""
    return Operation(
        name, (X, Y), lambda: compute, refuses, floating=floating, rule=BROADCAST, scalars=True, folds=True
    )


def _pair(name: str, compute: Compute, *, floating: bool = False) -> Operation:
    """Declare an elementwise function of two tensors."""
    return Operation(name, (X, Y), lambda: compute, floating=floating, rule=BROADCAST, folds=True)


def _reduced(whole: Compute, along: Compute) -> Callable[..., Compute]:
    """Make a reduction over all elements or along a dimension."""

    def make(dim: int | None = None, keepdim: bool | None = None) -> Compute:
        if dim is None:
            return whole
        kept = bool(keepdim)
        return lambda x: along(x, dim, kept)

    return make


def _extreme(whole: Compute, along: Callable[..., Any]) -> Callable[..., Compute]:
    """Make `max` or `min`, which yield values alone."""
    return _reduced(whole, lambda x, dim, kept: along(x, dim, kept)[0])


def _along(compute: Compute) -> Callable[..., Compute]:
    """Make a function along a dimension."""
    return lambda dim: lambda x: compute(x, dim)


def _logsumexp(dim: int, keepdim: bool | None = None) -> Compute:
    kept = bool(keepdim)
    return lambda x: torch.logsumexp(x, dim, kept)


def _norm(p: float | None = None, dim: int | None = None, keepdim: bool | None = None) -> Compute:
    order, kept = 2.0 if p is None else float(p), bool(keepdim)
    return lambda x: torch.linalg.vector_norm(x, order, dim, kept)


def _clamp() -> Compute:
    return torch.clamp


def _one_hot(classes: int) -> Compute:
    # compared, not scattered: a class out of range gives zeros, and never an assertion on a GPU
    return lambda x, dtype: (x.unsqueeze(-1) == torch.arange(classes, device=x.device)).to(dtype)


def _gather(dim: int) -> Compute:
    # clamped: an index out of range never reads other memory; `Expression.checked` refuses it
    return lambda x, index: torch.gather(x, dim, index.to(torch.int64).clamp(0, _last(x, dim)))


def _last(x: Tensor, dim: int) -> int:
    """Return the last index along a dimension."""
    return max(0, (x.shape[dim] if x.ndim else 1) - 1)


def _reshape(*sizes: int) -> Compute:
    return lambda x: x.reshape(sizes)


def _transpose(dim0: int, dim1: int) -> Compute:
    return lambda x: x.transpose(dim0, dim1)


def _concat(dim: int | None = None) -> Compute:
    along = dim or 0
    return lambda *tensors: torch.cat(tensors, along)


def _indexed(key: tuple[Any, ...]) -> Compute:
    return lambda x: x[key]


FUNCTIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        *(
            _unary(name, getattr(torch, name))
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
        _same("square", torch.square),
        _same("sign", torch.sign),
        *(_same(name, getattr(torch, name), _NO_MASKS) for name in ("abs", "relu", "floor", "round")),
        _pair("atan2", torch.atan2, floating=True),
        _pair("minimum", torch.minimum),
        _pair("maximum", torch.maximum),
        Operation("sum", REDUCED, _reduced(torch.sum, torch.sum)),
        Operation("mean", REDUCED, _reduced(torch.mean, torch.mean), _ONLY_NUMBERS),
        Operation("prod", REDUCED, _reduced(torch.prod, torch.prod)),
        Operation("max", REDUCED, _extreme(torch.max, torch.max)),
        Operation("min", REDUCED, _extreme(torch.min, torch.min)),
        Operation("logsumexp", (X, DIM, KEEPDIM), _logsumexp, floating=True),
        Operation("softmax", (X, DIM), _along(torch.softmax), _ONLY_NUMBERS),
        Operation("log_softmax", (X, DIM), _along(torch.log_softmax), _ONLY_NUMBERS),
        Operation("cumsum", (X, DIM), _along(torch.cumsum)),
        Operation(
            "norm", (X, Parameter("p", "order", required=False), ANY_DIM, KEEPDIM), _norm, _ONLY_NUMBERS
        ),
        Operation(
            "where", (Parameter("condition"), X, Y), lambda: torch.where, rule="a mask and " + BROADCAST
        ),
        Operation(
            "clamp",
            (
                X,
                Parameter("min", required=False, keyword=True),
                Parameter("max", required=False, keyword=True),
            ),
            _clamp,
            rule=BROADCAST,
            scalars=True,
        ),
        Operation("one_hot", (X, Parameter("classes", "count")), _one_hot, typed=True),
        Operation(
            "gather",
            (X, Parameter("index"), DIM),
            _gather,
            rule="an index of the same rank, no longer than x along the other dimensions",
        ),
        Operation(
            "reshape",
            (X, Parameter("sizes", "size", many=True)),
            _reshape,
            rule="sizes with as many elements",
        ),
        Operation("transpose", (X, Parameter("dim0", "dim"), Parameter("dim1", "dim")), _transpose),
        Operation(
            "concat",
            (Parameter("tensors", many=True), ANY_DIM),
            _concat,
            rule="tensors of equal shapes but for the dimension along which they are joined",
        ),
        Operation("detach", (X,), lambda: torch.detach),
        Operation("dot", (X, Y), lambda: torch.dot, rule="two vectors of one length"),
    )
}
"""The functions by name."""

OPERATORS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        _binary("+", operator.add),
        _binary("-", operator.sub, _NO_MASKS),
        _binary("*", operator.mul),
        _binary("/", operator.truediv, floating=True),
        _binary("**", operator.pow),
        *(
            _binary(name, compute)
            for name, compute in (
                ("<", operator.lt),
                ("<=", operator.le),
                (">", operator.gt),
                (">=", operator.ge),
                ("==", operator.eq),
                ("!=", operator.ne),
            )
        ),
        _binary("&", operator.and_, frozenset({NUMBERS, INTEGERS})),
        _binary("|", operator.or_, frozenset({NUMBERS, INTEGERS})),
        Operation("@", (X, Y), lambda: operator.matmul, rule="shapes that a matrix product joins"),
    )
}
"""The operators of two operands by their signs."""

NEGATIVE = Operation("-", (X,), lambda: torch.neg, _NO_MASKS, folds=True)
INVERTED = Operation("~", (X,), lambda: torch.bitwise_not, frozenset({NUMBERS, INTEGERS}), folds=True)
INDEXED = Operation("[]", (X,), _indexed)
INDEXING: Mapping[str, int] = {"one_hot": 0, "gather": 1}
"""Functions of an index, and its place among their tensors."""


def shapes(values: Sequence[object]) -> str:
    """Write the shapes of tensors, ``[]`` for a number.

    >>> shapes([torch.zeros(2, 3), 1.5])
    '[2, 3] and []'
    """
    return " and ".join(str(list(value.shape) if isinstance(value, Tensor) else []) for value in values)
