"""The area that two rotated boxes share, and that of their convex hull: exact polygons, slopes in closed form.

Boxes ``[..., 5]`` in float64 are seen from the axes of the other one. A slope is the length of a box's outline that
bounds the area, or a torque around the centre. Where outlines coincide, slopes are the mean of those of a box that is
larger by next to nothing, and of one that is smaller; boxes that only touch share nothing.
"""

from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

from service.losses.digits import sloped

NOISE = 8 * torch.finfo(torch.float64).eps
"""A turn that rounding may have made; times the size of the boxes, a distance."""


def shared_area(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the area of the intersection of pairs of boxes, ``[...]``."""
    value = _shared(boxes.detach(), others.detach())
    return sloped(value, (boxes, others), (boxes, _outline_within), (others, _other_outline_within))


def hull_area(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the area of the smallest convex polygon around pairs of boxes, ``[...]``."""
    corners = _all_corners(boxes.detach(), others.detach())
    value = _outline(corners, corners.of_larger)[0]
    return sloped(value, (boxes, others), (boxes, _outline_of_hull), (others, _other_outline_of_hull))


class _Seen(NamedTuple):
    """A box from the axes of another one: its centre, and its turn. ``half_*`` are the sides of that other box."""

    x: Tensor
    y: Tensor
    cos: Tensor
    sin: Tensor
    width: Tensor
    height: Tensor
    half_width: Tensor
    half_height: Tensor

    @property
    def corners(self) -> tuple[Tensor, Tensor]:
        """The corners ``[..., 4]``, counterclockwise from the one at the end of width and the start of height."""
        along, across = _local_corners(self.width, self.height)
        x = self.x[..., None] + self.cos[..., None] * along - self.sin[..., None] * across
        return x, self.y[..., None] + self.sin[..., None] * along + self.cos[..., None] * across


def _local_corners(width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners of boxes ``[..., 4]`` from their own axes."""
    along = torch.stack([width, width, -width, -width], -1) / 2
    return along, torch.stack([-height, height, height, -height], -1) / 2


def _seen(boxes: Tensor, others: Tensor) -> _Seen:
    """Look at boxes from the axes of others."""
    x, y, width, height, angle = boxes.unbind(-1)
    other_x, other_y, other_width, other_height, other_angle = others.unbind(-1)
    along, across = _turned(x - other_x, y - other_y, -other_angle)
    # of angles without digits the noise is still less than their turn
    turn, noise = angle - other_angle, (NOISE * (1 + angle.abs() + other_angle.abs())).clamp(max=1 / 8)
    cos, sin = turn.cos(), turn.sin()
    # parallel sides are so exactly, so that it is known where they coincide
    parallel, crossing = sin.abs() <= noise, cos.abs() <= noise
    cos = torch.where(parallel, cos.sign(), cos.masked_fill(crossing, 0.0))
    sin = torch.where(crossing, sin.sign(), sin.masked_fill(parallel, 0.0))
    return _Seen(along, across, cos, sin, width, height, other_width / 2, other_height / 2)


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors turned by an angle."""
    cos, sin = angle.cos(), angle.sin()
    return x * cos - y * sin, x * sin + y * cos


def _shared(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the area within both: that within the outline of the box, pushed into the other box where it leaves it.

    Pushed, no point of the outline changes its winding about a point inside the other box.
    """
    seen = _seen(boxes, others)
    x, y = seen.corners
    dx, dy = _steps(x), _steps(y)
    start, end = _crossings(x, dx, seen.half_width[..., None])
    start, end = start.clamp(0, 1), end.clamp(0, 1)
    height = _mean_clamped(y + start * dy, y + end * dy, seen.half_height[..., None])
    area = (dx * (start - end) * height).sum(-1)
    areas = torch.minimum(seen.width * seen.height, 4 * seen.half_width * seen.half_height)
    # and 0 in place of -0
    return torch.minimum(area.clamp(min=0), areas) + 0.0


def _steps(coordinates: Tensor) -> Tensor:
    """Return how far it is from each corner to the next."""
    return coordinates.roll(-1, -1) - coordinates


def _crossings(start: Tensor, step: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of a step at which it enters and leaves the numbers from -bound to bound; all of no step."""
    still = step == 0
    divisor = torch.where(still, 1.0, step)
    first, second = (-bound - start) / divisor, (bound - start) / divisor
    enters, leaves = torch.minimum(first, second), torch.maximum(first, second)
    return enters.masked_fill(still, -torch.inf), leaves.masked_fill(still, torch.inf)


def _mean_clamped(start: Tensor, end: Tensor, bound: Tensor) -> Tensor:
    """Return the mean of the numbers between two, clamped to -bound and bound."""
    least, most = torch.minimum(start, end), torch.maximum(start, end)
    low, high = torch.clamp(least, -bound, bound), torch.clamp(most, -bound, bound)
    below = (torch.minimum(most, -bound) - least).clamp(min=0)
    above = (most - torch.maximum(least, bound)).clamp(min=0)
    whole = most - least
    total = (low + high) / 2 * (high - low) + bound * (above - below)
    return torch.where(whole == 0, low, total / torch.where(whole == 0, 1.0, whole))


def _outline_within(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the slopes ``[..., 5]`` of the shared area by the numbers of the boxes."""
    seen = _seen(boxes, others)
    x, y = seen.corners
    dx, dy = _steps(x), _steps(y)
    bounds = seen.half_width[..., None], seen.half_height[..., None]
    noise = NOISE * _extent(seen)[..., None]
    enters, leaves = _crossings(x, dx, bounds[0])
    enters_y, leaves_y = _crossings(y, dy, bounds[1])
    start = torch.maximum(enters, enters_y).clamp(0, 1)
    end = torch.minimum(leaves, leaves_y).clamp(0, 1)
    within = _side_within(x, dx, dy, bounds[0], noise) * _side_within(y, dy, -dx, bounds[1], noise)
    share = (end - start).clamp(min=0) * within
    force = _turned((dy * share).sum(-1), -(dx * share).sum(-1), others[..., 4])
    lengths = torch.stack([seen.height, seen.width, seen.height, seen.width], -1)
    bounding = lengths * share
    torque = (lengths * bounding * (1 - start - end)).sum(-1) / 2
    right, top, left, bottom = bounding.unbind(-1)
    return torch.stack([*force, (right + left) / 2, (top + bottom) / 2, torque], -1)


def _other_outline_within(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the slopes ``[..., 5]`` of the shared area by the numbers of the others."""
    return _outline_within(others, boxes)


def _extent(seen: _Seen) -> Tensor:
    """Return the size of the numbers that corners are made of."""
    return seen.x.abs() + seen.y.abs() + seen.width + seen.height + seen.half_width + seen.half_height


def _side_within(start: Tensor, step: Tensor, outward: Tensor, bound: Tensor, noise: Tensor) -> Tensor:
    """Return whether sides without a step are between -bound and bound: 1, 0, or 1/2 on a bound with the same outside."""
    beyond = start.abs() - bound
    on_it = torch.where(start * outward > 0, 0.5, 0.0)
    return torch.where(step != 0, 1.0, torch.where(beyond.abs() <= noise, on_it, (beyond < 0).to(start)))


class _Corners(NamedTuple):
    """The corners of boxes, and then of others, ``[..., 8]``, from the axes of the others.

    Which of them are vertices of the hull is decided as if the boxes were larger by next to nothing, or smaller.
    """

    x: Tensor
    y: Tensor
    of_larger: Tensor
    of_smaller: Tensor


def _all_corners(boxes: Tensor, others: Tensor) -> _Corners:
    """Return the corners of both boxes, and which are vertices of their convex hull."""
    seen, back = _seen(boxes, others), _seen(others, boxes)
    x, y = seen.corners
    along, across = _local_corners(others[..., 2], others[..., 3])
    box, other = _extreme(back), _extreme(seen)
    # of corners at one place, and of corners on a side of the other box, those of the larger box are vertices
    hidden = (box.near & box.outer[..., None]).any(-2), (other.near & other.outer[..., None]).any(-2)
    larger = torch.cat([box.outer, other.inner & ~hidden[0]], -1)
    smaller = torch.cat([box.inner & ~hidden[1], other.outer], -1)
    return _Corners(torch.cat([x, along], -1), torch.cat([y, across], -1), larger, smaller)


class _Extreme(NamedTuple):
    """Which corners ``[..., 4]`` are vertices: with those on a side of the hull, and without.

    ``near``: which corners of the other box, ``[..., 4, 4]``, lie at their place.
    """

    outer: Tensor
    inner: Tensor
    near: Tensor


def _extreme(other: _Seen) -> _Extreme:
    """Return which corners of the box that another one is seen from are vertices of the hull of both.

    From such a corner all others lie within half a turn: its own box within a quarter, around the diagonal.
    """
    along, across = _local_corners(2 * other.half_width, 2 * other.half_height)
    x, y = other.corners
    u = (along[..., None] - x[..., None, :]) * along.sign()[..., None]
    v = (across[..., None] - y[..., None, :]) * across.sign()[..., None]
    distance, noise = u.abs() + v.abs(), NOISE * _extent(other)[..., None, None]
    # a direction is known where both corners are much further apart
    near = distance <= 16 * noise
    angle = torch.atan2(v - u, v + u).masked_fill(near, 0.0)
    slack = (noise / distance).masked_fill(near, 0.0)
    return _Extreme(_span(angle, -slack) <= pi, _span(angle, slack) < pi, near)


def _span(angle: Tensor, slack: Tensor) -> Tensor:
    """Return the turn from the first to the last of angles along the last axis and of an eighth of a turn both ways."""
    return (angle + slack).amax(-1).clamp(min=pi / 4) - (angle - slack).amin(-1).clamp(max=-pi / 4)


def _outline(corners: _Corners, vertices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the area of the polygon of some of the corners, and its slopes ``[..., 8]`` by their x and y."""
    # from the middle, which is inside the hull, the order is that of directions
    x, y = (each - each.mean(-1, keepdim=True) for each in (corners.x, corners.y))
    order = torch.sort(torch.atan2(y, x).masked_fill(~vertices, torch.inf), stable=True, dim=-1).indices
    count, places = vertices.sum(-1, keepdim=True), torch.arange(8, device=x.device)
    after = order.gather(-1, torch.where(places + 1 < count, places + 1, 0))
    before = order.gather(-1, torch.where(places > 0, places - 1, (count - 1).clamp(min=0)))
    of_x = (y.gather(-1, after) - y.gather(-1, before)) / 2
    of_y = (x.gather(-1, before) - x.gather(-1, after)) / 2
    of_x, of_y = (
        torch.zeros_like(x).scatter(-1, order, each).masked_fill(~vertices, 0.0) for each in (of_x, of_y)
    )
    return (x * of_x + y * of_y).sum(-1) / 2, of_x, of_y


def _outline_of_hull(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the slopes ``[..., 5]`` of the hull's area by the numbers of the boxes."""
    seen, (of_x, of_y) = _seen(boxes, others), _of_corners(boxes, others)
    of_x, of_y = of_x[..., :4], of_y[..., :4]
    cos, sin = seen.cos[..., None], seen.sin[..., None]
    along, across = of_x * cos + of_y * sin, of_y * cos - of_x * sin
    return _by_numbers(boxes, along, across, _turned(of_x.sum(-1), of_y.sum(-1), others[..., 4]))


def _other_outline_of_hull(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the slopes ``[..., 5]`` of the hull's area by the numbers of the others."""
    along, across = (each[..., 4:] for each in _of_corners(boxes, others))
    return _by_numbers(others, along, across, _turned(along.sum(-1), across.sum(-1), others[..., 4]))


def _of_corners(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes ``[..., 8]`` of the hull's area by x and y of the corners, from the axes of the others."""
    corners = _all_corners(boxes, others)
    _, *larger = _outline(corners, corners.of_larger)
    _, *smaller = _outline(corners, corners.of_smaller)
    return (larger[0] + smaller[0]) / 2, (larger[1] + smaller[1]) / 2


def _by_numbers(boxes: Tensor, along: Tensor, across: Tensor, force: tuple[Tensor, Tensor]) -> Tensor:
    """Return slopes by the numbers of boxes from those by their corners, along their axes."""
    width, height = boxes[..., 2], boxes[..., 3]
    x, y = _local_corners(torch.ones_like(width), torch.ones_like(height))
    torque = (x * width[..., None] * across - y * height[..., None] * along).sum(-1)
    return torch.stack([*force, (x * along).sum(-1), (y * across).sum(-1), torque], -1)
