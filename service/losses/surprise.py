"""Negative log-probabilities from logits: every digit where the model is sure, the limit where a logit is infinite.

Torch's functions subtract the right logit from a sum that it dominates: at a logit of 20 the loss of 2e-9
is 0 in float32, and so is its slope; and they multiply a share of 0 by an infinite logit, which is NaN.
"""

from math import isnan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from service.losses.stacking import Stackable, is_known

UNSURE = 1 / 8
"""Above this cross entropy, torch's own arithmetic is accurate to a few units in the last place, as are its slopes."""


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), exact where torch's own softplus turns into a line; 0 at minus infinity."""
    return -F.logsigmoid(-x)


def binary_surprise(logits: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return yes * log(1 + exp(-z)) + no * log(1 + exp(z)), where a share of 0 costs nothing at any logit.

    ``yes`` and ``no`` are at least 0, of the logits' shape.
    """
    return _BinarySurprise.apply(logits, yes, no)


def surprise(logits: Tensor, targets: Tensor, axis: int = 1, *, ignore: int | None = None) -> Tensor:
    """Return the negative log-softmax of each target's class, which lies along ``axis``.

    A single infinite logit has all the probability. Targets are valid indices or ``ignore``, which costs
    nothing, whatever its logits.
    """
    return counted_surprise(logits, targets, axis, ignore=ignore)[0]


def counted_surprise(
    logits: Tensor, targets: Tensor, axis: int = 1, *, ignore: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the `surprise` of each target's class, and 1 where a target counts, 0 where it is ignored."""
    axis, logs = axis % logits.dim(), None
    if is_known(logits) and targets.numel():
        found = logits.log_softmax(axis)
        loss = _at_targets(found, targets, axis, -100 if ignore is None else ignore)
        # an ignored target costs 0
        least = loss.detach().min().item()
        if least > UNSURE:
            return loss, torch.ones_like(loss)
        # an infinite logit makes it NaN
        logs = None if isnan(least) else found.detach()
    return _Surprise.apply(logits, logs, targets, ignore, axis - logits.dim())[:2]


def _at_targets(logs: Tensor, targets: Tensor, axis: int, ignore: int) -> Tensor:
    """Return minus the logarithm at each target, 0 where it is ignored."""
    by_class = logs if axis == min(1, logs.dim() - 1) else logs.movedim(axis, 1)
    return F.nll_loss(by_class, targets, ignore_index=ignore, reduction="none")


def soft_surprise(logits: Tensor, shares: Tensor, axis: int = -1) -> Tensor:
    """Return the negative log-softmax along ``axis``, each class with its share: 0 of it costs nothing."""
    return _SoftSurprise.apply(logits, shares, _from_the_end(axis, logits))[0]


def _from_the_end(axis: int, tensor: Tensor) -> int:
    """Return an axis as a negative number, which stays the same when axes are added in front."""
    return axis if axis < 0 else axis - tensor.dim()


class _BinarySurprise(Stackable):
    """The weighed sum of both sides, by the size of the logit: neither side is the difference of the other."""

    @staticmethod
    def forward(logits: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        size = logits.abs()
        # 0 times infinity is the only NaN to drop: that of a NaN logit comes back with the second term
        linear = torch.where(logits > 0, no, yes).mul_(size).nan_to_num_(0.0, posinf=torch.inf)
        curved = F.logsigmoid(size)
        return linear.addcmul_(curved, yes, value=-1).addcmul_(curved, no, value=-1)

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


class _Surprise(Stackable):
    """Cross entropy whose slope at the target is the sum of the other probabilities, not 1 - p.

    ``logs`` are the logarithms of the softmax, if they are known.
    """

    @staticmethod
    def forward(
        logits: Tensor, logs: Tensor | None, targets: Tensor, ignore: int | None, axis: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ignored = None if ignore is None else targets == ignore
        # skipping the masks saves a third of the time; on a GPU the look would wait for the device
        if ignored is not None and ignored.is_cpu and not ignored.any():
            ignored = None
        index = (targets if ignored is None else targets.masked_fill(ignored, 0)).unsqueeze(axis)
        largest = torch.finfo(logits.dtype).max
        # as a lead the largest number is infinite, and minus itself it is 0
        logs = logits.clamp(max=largest).log_softmax(axis) if logs is None else logs
        # of finite logits none is so far behind
        own = torch.threshold_(logs.gather(axis, index), -largest / 2, -torch.inf)
        others = logs.exp().scatter_(axis, index, 0.0)
        minus_rest = others.sum(axis, keepdim=True).neg_()
        slopes = others.scatter_(axis, index, minus_rest)
        loss = torch.where(minus_rest > -0.5, minus_rest.log1p(), own).neg_().squeeze(axis)
        if ignored is None:
            return loss, torch.ones_like(loss), slopes
        slopes = slopes.masked_fill_(ignored.unsqueeze(axis), 0.0)
        return loss.masked_fill_(ignored, 0.0), (~ignored).to(loss), slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.axis = inputs[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(output[2])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * upstream[0].unsqueeze(ctx.axis), None, None, None, None


class _SoftSurprise(Stackable):
    """Cross entropy to a distribution: the likeliest class is measured by the probability of all others."""

    @staticmethod
    def forward(logits: Tensor, shares: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        lead = logits.clamp(max=torch.finfo(logits.dtype).max)
        best, top = lead.max(axis, keepdim=True)
        lead = lead.sub_(best)
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
