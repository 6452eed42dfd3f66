"""Which anchor or point of an image learns which of its true boxes. A decision: nothing here has a gradient.

It is made in float64, so that it does not depend on the dtype in which a loss is computed.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from service.losses.detection.boxes import columns
from service.losses.detection.shares import BoxFormat


def best_anchors(
    anchors: Tensor, true_boxes: Tensor, image: Tensor, images: int, box_format: BoxFormat, threshold: float
) -> Tensor:
    """Return the number of the true box ``[M, 4]`` that each anchor ``[A, 4]`` of each image learns, else -1: ``[B, A]``.

    Each box takes the anchor that it overlaps most; beside these, each anchor takes the box of its ``image`` that
    overlaps it most, if their IoU is above ``threshold``.
    """
    boxes, others = (corners(each.detach().double(), box_format) for each in (true_boxes, anchors))
    share = box_shares(boxes[:, :, None], others[:, None])
    rows = image[:, None].expand_as(share)
    most, first = strongest(share, rows, images)
    matched = torch.where(most > threshold, first, -1)
    own, place = share.max(1)
    claimed, claimant = strongest(own, image * len(anchors) + place, matched.numel())
    return torch.where((claimed > 0).view_as(matched), claimant.view_as(matched), matched)


def strongest(claims: Tensor, places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the largest claim of at least 0 at each of ``size`` places, and the row of the first that is as large.

    Claims ``[M, ...]`` are for places along the first axis, the others stay apart.
    """
    shape = (size, *claims.shape[1:])
    most = claims.new_zeros(shape).scatter_reduce(0, places, claims, "amax")
    rows = torch.arange(len(claims), device=claims.device).view(-1, *[1] * (claims.dim() - 1))
    # past the last row, so that it is never the least of several
    losing = torch.where(claims == most.gather(0, places), rows, len(claims))
    return most, losing.new_full(shape, len(claims)).scatter_reduce(0, places, losing, "amin")


def corners(boxes: Tensor, box_format: BoxFormat) -> Tensor:
    """Return boxes ``[..., 4]`` as two corners ``[4, ...]``."""
    first, second = columns(boxes).chunk(2)
    match box_format:
        case "xyxy":
            return torch.cat([first, second])
        case "xywh":
            return torch.cat([first, first + second])
        case "cxcywh":
            return torch.cat([first - second / 2, first + second / 2])


def box_shares(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of boxes and others by corners ``[4, ...]``; of no area it is 0."""
    left, top, right, bottom = boxes
    other_left, other_top, other_right, other_bottom = others
    width = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp(min=0)
    height = (torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)).clamp(min=0)
    both = width * height
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    union = areas - both
    return both / torch.where(union > 0, union, 1.0)


class Learners(NamedTuple):
    """For each true box the points that may learn it, ``[M, k]``: ``place`` is their index, ``alignment`` their score.

    ``own`` says whether a point does, and is not another box's. ``assignment`` is the true box of each point, ``[B, A]``.
    """

    place: Tensor
    own: Tensor
    alignment: Tensor
    assignment: Tensor


def aligned_points(fits: Tensor, metric: Tensor, image: Tensor, images: int, most: int) -> Learners:
    """Return the points that learn each true box, at most so many, by the logarithm of their metric ``[M, A]``.

    It is minus infinity where a point is out of the question. A point that several boxes take goes to the one that it
    ``fits`` best, by IoUs ``[M, A]``.
    """
    chosen = _leading(metric, min(most, metric.shape[1]))
    # an IoU of no number has to be chosen, and seen
    claims = torch.where(chosen, fits.nan_to_num(nan=2.0), -1.0)
    _, owner = strongest(claims, image[:, None].expand_as(claims), images)
    steps = torch.arange(metric.shape[1], 0, -1, device=metric.device)
    place = (chosen * steps).topk(min(most, metric.shape[1]), dim=1).indices
    rows = torch.arange(len(metric), device=metric.device)[:, None]
    own = chosen.gather(1, place) & (owner[image[:, None], place] == rows)
    metrics, shares = metric.gather(1, place), fits.gather(1, place)
    best = torch.where(own, metrics, -torch.inf).amax(1, keepdim=True)
    highest = torch.where(own, shares, 0.0).amax(1, keepdim=True)
    alignment = torch.where(own, torch.exp(metrics - best) * highest, 0.0)
    return Learners(place, own, alignment, torch.where(owner < len(metric), owner, -1))


def _leading(metric: Tensor, most: int) -> Tensor:
    """Return where the highest numbers of each row are, of equal ones the first; minus infinity never is."""
    last = metric.topk(most, dim=1).values[:, -1:]
    above, equal = metric > last, metric == last
    room = most - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= room))) & (metric > -torch.inf)
