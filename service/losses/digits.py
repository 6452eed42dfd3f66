"""Arithmetic that keeps its digits where the formula on paper would cancel them, or overflow on the way."""

from collections.abc import Callable
from typing import Any, TypeVarTuple, cast

import torch
from torch import Tensor

from service.losses.stacking import Stackable

Tensors = TypeVarTuple("Tensors")
"""The inputs of a loss's slopes."""


def log_ratio(numerator: Tensor, denominator: Tensor, difference: Tensor) -> Tensor:
    """Return the logarithm of a ratio; near 1 it is made of the difference, whose digits the ratio lost."""
    close = difference.abs() < denominator / 2
    near = torch.log1p(torch.where(close, difference, 0.0) / denominator)
    return torch.where(close, near, numerator.log() - denominator.log())


def saturating(values: Tensor) -> Tensor:
    """Return 1 - e^-x, with the digits of its slope, e^-x, however large x is."""
    decay = torch.exp(-values)
    # the slope of expm1 is itself plus 1, which is 0 from 17 on in float32
    return -torch.expm1(-values.detach()) + (decay.detach() - decay)


def bounded(values: Tensor, least: float, most: float | None = None) -> Tensor:
    """Return values that only rounding takes beyond their bounds without that rounding; slopes stay."""
    beyond = values.detach().clamp(least, most) - values.detach()
    # an infinite value is within the bounds, and less itself would be NaN
    return values + torch.where(values.isfinite(), beyond, 0.0)


def excess(values: Tensor, factor: Tensor | None = None) -> Tensor:
    """Return e^x - 1 - x, by how much the exponential is above its tangent at 0, times a factor.

    Without a slope: that is e^x - 1, `growth`.
    """
    if values.dtype == torch.float64:
        return _excess_by_series(values, factor)
    wide = values.double()
    # beyond the series this loses at most five of 16 digits
    whole = wide.expm1().sub_(wide)
    near = (values / 6).add_(1 / 2).mul_(values).mul_(values)
    if factor is not None:
        whole, near = whole.mul_(factor), near.mul_(factor)
    return torch.where(values.abs() < 1e-4, near, whole.to(near))


def _excess_by_series(values: Tensor, factor: Tensor | None) -> Tensor:
    """Return the excess by a series where it is small; beyond it by what it has grown by."""
    one, near = values.new_ones(()), values.clamp(-1 / 8, 1 / 8)
    series = one
    # the remainder is below the rounding error
    for k in range(12, 2, -1):
        series = torch.addcmul(one, near, series, value=1 / k)
    # in place, and without the masks that would take longer
    inner, far = series.mul_(near).mul_(near).div_(2), values - near
    exponential = near.add_(inner).add_(1)
    if factor is None:
        return inner.sub_(far).add_(far.expm1().mul_(exponential))
    return inner.sub_(far).mul_(factor).add_(growth(far, factor).mul_(exponential))


def growth(values: Tensor, factor: Tensor) -> Tensor:
    """Return a factor times e^x - 1, which the factor may keep from overflowing."""
    half = (values / 2).expm1_()
    # in this order, as the square of the half may overflow
    return (half + 2).mul_(factor * half)


def sloped(
    value: Tensor, known: tuple[*Tensors], *slopes: tuple[Tensor, Callable[[*Tensors], Tensor]]
) -> Tensor:
    """Return a value with given derivatives, as pairs of a tensor and a function from ``known`` to its slope.

    An element of the value depends on the element of a tensor at its place, or on all that have its index.
    For slopes with a closed form, where autograd on the arithmetic of the value would suffer from cancellation.
    """
    tensors, functions = zip(*slopes, strict=True)
    parts = [part.detach() for part in cast(tuple[Tensor, ...], known)]
    return _Sloped.apply(functions, value.detach(), *tensors, *parts)


class _Sloped(Stackable):
    """A value, and functions that give its slopes when it is differentiated, by tensors that come after it."""

    @staticmethod
    def forward(slopes: tuple[Callable[..., Tensor], ...], value: Tensor, *tensors: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.slopes, _, *tensors = inputs
        ctx.dtypes = [tensor.dtype for tensor in tensors[: len(ctx.slopes)]]
        ctx.others = len(tensors) - len(ctx.slopes)
        ctx.save_for_backward(*tensors[len(ctx.slopes) :])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        found = [
            _chained(upstream[0], slope(*ctx.saved_tensors).to(dtype)) if needed else None
            for slope, dtype, needed in zip(ctx.slopes, ctx.dtypes, ctx.needs_input_grad[2:], strict=False)
        ]
        return (None, None, *found, *[None] * ctx.others)


def _chained(upstream: Tensor, slope: Tensor) -> Tensor:
    """Return the product, of each element with all slopes that have its index."""
    return upstream[(..., *[None] * (slope.dim() - upstream.dim()))] * slope
