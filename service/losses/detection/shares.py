"""Intersection over union and its complement in one step: where box losses spend most of their time."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from service.losses.stacking import Function

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Two corners; the top-left corner and the sides; the centre and the sides."""


class Edges(NamedTuple):
    """How boxes lie as seen from their targets, ``[2, ...]`` each; x and y lie along the first axis.

    ``near`` and ``far`` are left and right, or upper and lower edges less those of the target, ``shared`` the
    lengths that both cover, 0 where boxes lie apart or only touch.
    """

    near: Tensor
    far: Tensor
    shared: Tensor


def edges(boxes: Tensor, targets: Tensor, box_format: BoxFormat) -> Edges:
    """Compare boxes ``[4, ...]`` with targets that they broadcast with, by differences of the original coordinates.

    Corners that are computed first would round a difference to the digits of the coordinates.
    """
    first, second = boxes.chunk(2)
    target_first, target_second = targets.chunk(2)
    near, far = first - target_first, second - target_second
    if box_format == "xyxy":
        shared = torch.minimum(second, target_second) - torch.maximum(first, target_first)
        return Edges(near, far, torch.relu(shared))
    growth = far
    near = near - growth / 2 if box_format == "cxcywh" else near
    # no longer than either side, however the edges are rounded
    within = torch.minimum(second, target_second)
    shared = torch.minimum(within, torch.minimum(second + near, target_second - near))
    return Edges(near, near + growth, torch.relu(shared))


def shares(boxes: Tensor, targets: Tensor, box_format: BoxFormat, eps: float) -> tuple[Tensor, Tensor]:
    """Return the IoU of pairs of boxes ``[4, ...]``, and one minus it, each with all of its digits.

    Boxes without area have all of it in common where they are the same, else nothing.
    """
    iou, loss, *_ = _Shares.apply(boxes, targets, box_format, eps)
    return iou, loss


class _Shares(Function):
    """The quotients of two areas by their sum; autograd would make three times as many tensors of them."""

    @staticmethod
    def forward(boxes: Tensor, targets: Tensor, box_format: BoxFormat, eps: float) -> tuple[Tensor, ...]:
        near, far, shared = edges(boxes, targets, box_format)
        own, other = _sticking_out(near, far)
        (own_x, own_y), (other_x, other_y), (shared_x, shared_y) = own, other, shared
        both = shared_x * shared_y
        # strips that only one covers: areas less their intersection would lose the digits of a good fit. Of
        # boxes apart it is some area above 0
        missed = (own_x * own_y).addcmul_(other_x, other_y)
        apart_x, apart_y = own_x.add_(other_x), own_y.add_(other_y)
        missed = missed.addcmul_(shared_x, apart_y).addcmul_(apart_x, shared_y)
        missed = missed.add_(eps) if eps else missed
        union = both + missed
        flat, distinct = union == 0, apart_x.add_(apart_y) > 0
        union = union.masked_fill_(flat, 1)
        both = both.masked_fill_(flat & ~distinct, 1)
        missed = missed.masked_fill_(flat & distinct, 1)
        return both.div_(union), missed.div_(union), union, near, far, shared

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.box_format = inputs[2]
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        iou, loss, union, near, far, shared = ctx.saved_tensors
        own, other = _sticking_out(near, far)
        each = (upstream[1] - upstream[0]).div_(union)
        of_missed, of_both = each * iou, each.mul_(loss)
        of_shared = _across(own + other, of_missed).sub_(_across(shared, of_both))
        # apart, the shared length stays 0; where edges meet, both boxes have half of what it gains
        of_shared = of_shared.mul_(shared.sign()).div_(2)
        of_own, of_other = _across(own.add_(shared), of_missed), _across(other.add_(shared), of_missed)
        after, beyond = near.sign(), far.sign()
        of_near = (after.clamp(min=0).mul_(of_other)).addcmul_(after.clamp(max=0), of_own)
        of_far = (beyond.clamp(min=0).mul_(of_own)).addcmul_(beyond.clamp(max=0), of_other)
        of_boxes = _to_format(
            of_near.sub(of_shared).addcmul_(of_shared, after, value=-1),
            of_far.add(of_shared).addcmul_(of_shared, beyond, value=-1),
            ctx.box_format,
        )
        if not ctx.needs_input_grad[1]:
            return of_boxes, None, None, None
        of_targets = _to_format(
            of_near.neg().sub_(of_shared).addcmul_(of_shared, after),
            of_far.neg().add_(of_shared).addcmul_(of_shared, beyond),
            ctx.box_format,
        )
        return of_boxes, of_targets, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        boxes, targets = (_beside(t, dim, info.batch_size) for t, dim in zip(args[:2], in_dims, strict=False))
        found = _Shares.apply(boxes, targets, *args[2:])
        return found, (0, 0, 0, 1, 1, 1)


def _sticking_out(near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths by which boxes stick out of their targets, and their targets out of them."""
    return far.clamp(min=0).sub_(near.clamp(max=0)), near.clamp(min=0).sub_(far.clamp(max=0))


def _across(lengths: Tensor, each: Tensor) -> Tensor:
    """Return the derivative of an area along each axis, from the lengths along the other."""
    return torch.stack([lengths[1] * each, lengths[0] * each])


def _to_format(of_near: Tensor, of_far: Tensor, box_format: BoxFormat) -> Tensor:
    """Return the derivatives by the four numbers of boxes, of those by their edges."""
    match box_format:
        case "xyxy":
            return torch.cat([of_near, of_far])
        case "xywh":
            return torch.cat([of_near + of_far, of_far])
        case "cxcywh":
            return torch.cat([of_near + of_far, (of_far - of_near) / 2])


def _beside(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move the axis of calls to the second place, after that of the four numbers."""
    if dim is None:
        return tensor.unsqueeze(1).expand(4, size, *tensor.shape[1:])
    return tensor.movedim(dim, 1)
