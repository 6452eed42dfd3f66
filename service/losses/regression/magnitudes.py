"""How large residuals are, in forms that neither overflow on the way nor divide by zero."""

from typing import Any, cast

import torch
from torch import Tensor


def norm(values: Tensor, dim: int | None = None) -> Tensor:
    """Return the Euclidean norm along ``dim``, kept as a size of 1; over all elements without it.

    Its gradient is 0 at 0, and squares of huge values do not overflow.
    """
    largest = values.detach().abs().amax(() if dim is None else dim, keepdim=dim is not None)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    total = (values / scale).square().sum(dim, keepdim=dim is not None)
    zero = total == 0
    return scale * torch.where(zero, 0.0, torch.where(zero, 1.0, total).sqrt())


def wide_norm(vectors: Tensor) -> Tensor:
    """Return the Euclidean norm along the last axis, kept as a size of 1, in float64.

    It squares every float32 number without over- or underflow.
    """
    # torch leaves the function untyped
    length: Tensor = cast(Any, torch.linalg).vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float64)
    return length


def log1p_square(values: Tensor) -> Tensor:
    """Return the logarithm of one plus the square, though the square may overflow."""
    far = values.abs() > 1
    outer, inner = torch.where(far, values, 1.0).abs(), torch.where(far, 0.0, values)
    return torch.where(far, 2 * outer.log() + torch.log1p(outer**-2), torch.log1p(inner.square()))


def largest_shape(values: Tensor) -> float:
    """Return a bound for a shape param that a client may send as large as it likes.

    Far beyond the square of all values a shape is as good as infinite, and would overflow in their type.
    """
    return torch.finfo(values.dtype).max ** 0.75
