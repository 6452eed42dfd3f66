"""Negative log-probabilities from logits: every digit where the model is sure, the limit where a logit is infinite.

Torch's functions subtract the right logit from a sum that it dominates: at a logit of 20 the loss of 2e-9
is 0 in float32, and so is its slope; and they multiply a share of 0 by an infinite logit, which is NaN.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from service.losses.stacking import calls_in_front, signed_once


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), exact where torch's own softplus turns into a line; 0 at minus infinity."""
    return -F.logsigmoid(-x)


def binary_surprise(logits: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return yes * log(1 + exp(-z)) + no * log(1 + exp(z)), where a share of 0 costs nothing at any logit.

    ``yes`` and ``no`` are at least 0, of the logits' shape.
    """
    return cast(_Binary, _BinarySurprise).apply(logits, yes, no)


def surprise(logits: Tensor, targets: Tensor, axis: int = 1, *, ignore: int | None = None) -> Tensor:
    """Return the negative log-softmax of each target's class, which lies along ``axis``.

    A single infinite logit has all the probability. Targets are valid indices or ``ignore``, which costs
    nothing, whatever its logits.
    """
    axis = axis % logits.dim()
    if ignore is None:
        return cast(_Indexed, _Surprise).apply(logits, targets, None, axis)[0]
    counted = targets != ignore
    index = torch.where(counted, targets, 0)
    return torch.where(counted, cast(_Indexed, _Surprise).apply(logits, index, counted, axis)[0], 0.0)


def soft_surprise(logits: Tensor, shares: Tensor, axis: int = -1) -> Tensor:
    """Return the negative log-softmax along ``axis``, each class with its share: 0 of it costs nothing."""
    return cast(_Shared, _SoftSurprise).apply(logits, shares, axis % logits.dim())[0]


class _Binary(Protocol):
    """The type of `_BinarySurprise` for callers."""

    def apply(self, logits: Tensor, yes: Tensor, no: Tensor, /) -> Tensor: ...


class _Indexed(Protocol):
    """The type of `_Surprise` for callers."""

    def apply(
        self, logits: Tensor, targets: Tensor, counted: Tensor | None, axis: int, /
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class _Shared(Protocol):
    """The type of `_SoftSurprise` for callers."""

    def apply(self, logits: Tensor, shares: Tensor, axis: int, /) -> tuple[Tensor, Tensor, Tensor]: ...


@signed_once
class _BinarySurprise(torch.autograd.Function):
    """The weighed sum of both sides, by the size of the logit: neither side is the difference of the other."""

    @staticmethod
    def forward(logits: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        linear = logits.clamp(min=0).mul_(no).addcmul_(logits.clamp(max=0), yes, value=-1)
        # 0 times infinity is the only NaN to drop: that of a NaN logit comes back with the second term
        linear.nan_to_num_(0.0, posinf=torch.inf)
        curved = logits.abs().neg_().exp_().log1p_()
        return linear.addcmul_(curved, yes).addcmul_(curved, no)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logits, yes, no = ctx.saved_tensors
        _, of_yes, of_no = ctx.needs_input_grad
        return (
            torch.sigmoid(logits).mul_(no).addcmul_(logits.neg().sigmoid_(), yes, value=-1).mul_(upstream[0]),
            upstream[0] * softplus(-logits) if of_yes else None,
            upstream[0] * softplus(logits) if of_no else None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
        return cast(_Binary, _BinarySurprise).apply(*calls_in_front(info.batch_size, in_dims, args)), 0


@signed_once
class _Surprise(torch.autograd.Function):
    """Cross entropy whose slope at the target is the sum of the other probabilities, not 1 - p."""

    @staticmethod
    def forward(
        logits: Tensor, targets: Tensor, counted: Tensor | None, axis: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = targets.unsqueeze(axis)
        largest = torch.finfo(logits.dtype).max
        # as a lead the largest number is infinite, and minus itself it is 0
        odds = logits.clamp(max=largest)
        # a square matrix of no rows has no columns, and those no maximum
        top = odds.amax(axis, keepdim=True) if odds.numel() else own.to(odds)
        # below it the odds of excluded classes are 0, and so are the slopes
        top = top if counted is None else torch.where(counted.unsqueeze(axis), top, largest)
        lag = odds.sub_(top).gather(axis, own)
        rest = odds.exp_().scatter_(axis, own, 0.0).sum(axis, keepdim=True)
        right = lag.exp()
        total = rest + right if counted is None else torch.where(counted.unsqueeze(axis), rest + right, 1.0)
        # beyond half the largest number only an infinite logit puts a loss
        loss = torch.where(rest < right, (rest / right).log1p(), (total.log() - lag) * 2 / 2)
        slopes = odds.scatter_(axis, own, -rest)
        # NaN must not get into ignored elements; the total brings it back to the others
        return loss.squeeze(axis), slopes if counted is None else slopes.nan_to_num_(0.0), total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.axis = inputs[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        slopes, total = ctx.saved_tensors
        return slopes * (upstream[0].unsqueeze(ctx.axis) / total), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, tuple[int, int, int]]:
        *tensors, axis = args
        logits, targets, counted = calls_in_front(info.batch_size, in_dims, tensors)
        return cast(_Indexed, _Surprise).apply(logits, targets, counted, axis + 1), (0, 0, 0)


@signed_once
class _SoftSurprise(torch.autograd.Function):
    """Cross entropy to a distribution: the likeliest class is measured by the probability of all others."""

    @staticmethod
    def forward(logits: Tensor, shares: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        lead = logits.clamp(max=torch.finfo(logits.dtype).max)
        best, top = lead.max(axis, keepdim=True)
        lead.sub_(best)
        odds = lead.exp().scatter_(axis, top, 0.0)
        rest = odds.sum(axis, keepdim=True)
        costs = lead.neg_().add_(rest.log1p())
        # a share of 0 at a logit of minus infinity is NaN; that of a NaN logit comes back with the rest
        loss = (shares * costs).nan_to_num_(0.0, posinf=torch.inf).sum(axis) + 0 * rest.squeeze(axis)
        others = shares.scatter(axis, top, 0.0)
        each = shares.sum(axis, keepdim=True) / (1 + rest)
        at_top = others.sum(axis, keepdim=True) - each * rest
        return loss, odds.mul_(each).sub_(others).scatter_(axis, top, at_top), costs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.axis = inputs[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        slopes, costs = ctx.saved_tensors
        each = upstream[0].unsqueeze(ctx.axis)
        return slopes * each, costs * each if ctx.needs_input_grad[1] else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, tuple[int, int, int]]:
        *tensors, axis = args
        logits, shares = calls_in_front(info.batch_size, in_dims, tensors)
        return cast(_Shared, _SoftSurprise).apply(logits, shares, axis + 1), (0, 0, 0)
