"""Shared parts of axis-aligned box losses: formats, valid boxes, the position and overlap of a pair."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts
from service.catalogue.spec import Diagnostic, Prediction, Scales, Target, Unreduced
from service.losses.detection.shares import BoxFormat, Edges, edges, shares

Area = Annotated[float, Ge(0)]
"""A number that is added to areas; with 0 the loss has no unit."""

UNITLESS = Scales(0, params={"eps": 0.0})
"""How losses scale that compare areas with areas and lengths with lengths only."""


@dataclass(frozen=True, slots=True)
class Boxes(Domain):
    """Boxes along the last axis, in the format that the param ``box_format`` names; ``solid`` ones have an area."""

    solid: bool = False

    def describe(self) -> str:
        if self.solid:
            return "boxes with sides above 0, so x2 > x1 and y2 > y1 in box_format xyxy"
        return "boxes with sides of at least 0, so x2 >= x1 and y2 >= y1 in box_format xyxy"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        first, second = values.chunk(2, -1)
        least = first if facts.params["box_format"] == "xyxy" else torch.zeros_like(first)
        # a box with an infinity or NaN is not inverted; whether it is admitted depends on its role
        small = second <= least if self.solid else second < least
        inverted = small & second.isfinite() & least.isfinite()
        return torch.cat([torch.ones_like(inverted), ~inverted], -1)

    def found(self, values: Tensor, index: tuple[int, ...]) -> str:
        return f"the box [{', '.join(f'{number.item():.10g}' for number in values[index[:-1]])}]"

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        corner, sides = torch.rand(shape, generator=rng, dtype=torch.float64).chunk(2, -1)
        corner, sides = 4 * corner, 2 + 6 * sides
        match facts.params["box_format"]:
            case "xyxy":
                return torch.cat([corner, corner + sides], -1)
            case "xywh":
                return torch.cat([corner, sides], -1)
            case _:
                return torch.cat([corner + sides / 2, sides], -1)


PredictedBoxes = Annotated[Tensor, Prediction("... 4", Boxes())]
TargetBoxes = Annotated[Tensor, Target("... 4", Boxes())]


class BoxLoss(NamedTuple):
    """A loss for each pair of boxes, and how much they overlap."""

    loss: Annotated[Tensor, Unreduced("...")]
    iou: Annotated[Tensor, Diagnostic("...")]


@dataclass(frozen=True)
class Pair:
    """Boxes ``[4, ...]`` and their targets; of their properties, x and y lie along the first axis."""

    box: Tensor
    target: Tensor
    box_format: BoxFormat

    @cached_property
    def edges(self) -> Edges:
        """How the box lies as seen from its target."""
        return edges(self.box, self.target, self.box_format)

    @cached_property
    def sides(self) -> Tensor:
        """The sides of the box."""
        return _sides(self.box, self.box_format)

    @cached_property
    def target_sides(self) -> Tensor:
        """The sides of the target."""
        return _sides(self.target, self.box_format)

    @cached_property
    def growth(self) -> Tensor:
        """The sides of the box, less those of the target."""
        if self.box_format == "xyxy":
            return self.edges.far - self.edges.near
        return self.box[2:] - self.target[2:]

    @cached_property
    def other(self) -> Tensor:
        """The lengths by which the target sticks out of the box."""
        return torch.relu(self.edges.near) + torch.relu(-self.edges.far)


def read_pair(boxes: Tensor, targets: Tensor, box_format: BoxFormat) -> Pair:
    """Return boxes ``[..., 4]`` with their targets."""
    return Pair(columns(boxes), columns(targets), box_format)


def columns(boxes: Tensor) -> Tensor:
    """Return boxes ``[..., 4]`` as ``[4, ...]``."""
    # whole columns of x and y in a row of memory: arithmetic on every fourth number is several times slower
    return boxes.movedim(-1, 0).contiguous()


def drawn_apart(pair: Pair, factor: float) -> Pair:
    """Return a pair of boxes whose centres lie so many times as far apart."""
    offset = factor * centre_offset(pair)
    box, target = torch.cat([offset, pair.sides]), torch.cat([torch.zeros_like(offset), pair.target_sides])
    return Pair(box, target, "cxcywh")


def _sides(boxes: Tensor, box_format: BoxFormat) -> Tensor:
    """Return the sides of boxes ``[4, ...]``."""
    first, second = boxes.chunk(2)
    return second - first if box_format == "xyxy" else second


def area(sides: Tensor) -> Tensor:
    """Return the area that sides ``[2, ...]`` span."""
    width, height = sides.unbind()
    return width * height


class Overlap(NamedTuple):
    """Intersection over union of two boxes, and one minus it, with all digits of either."""

    iou: Tensor
    loss: Tensor


def overlap(pair: Pair, eps: float) -> Overlap:
    """Return how much of the area that two boxes cover is covered by both, and how much is not.

    Boxes without area have all of it in common where they are the same, else nothing.
    """
    return Overlap(*shares(pair.box, pair.target, pair.box_format, eps))


def empty_share(pair: Pair, eps: float) -> Tensor:
    """Return which share of the enclosing box neither box covers."""
    enclosing = area(enclosing_sides(pair))
    own = torch.relu(pair.edges.far) + torch.relu(-pair.edges.near)
    (own_x, own_y), (other_x, other_y) = own, pair.other
    # of boxes that overlap two corners are empty; they are small where the fit is good
    corners = own_x * other_y + other_x * own_y
    between = torch.relu(enclosing - area(pair.sides) - area(pair.target_sides))
    return quotient(torch.where(area(pair.edges.shared) > 0, corners, between), enclosing, eps)


def enclosing_sides(pair: Pair) -> Tensor:
    """Return the sides of the smallest box around two boxes."""
    return pair.sides + pair.other


def centre_offset(pair: Pair) -> Tensor:
    """Return where the centre of a box lies as seen from that of its target."""
    return (pair.edges.near + pair.edges.far) / 2


def squared_length(vectors: Tensor) -> Tensor:
    """Return the squared length of vectors ``[2, ...]``."""
    x, y = vectors.unbind()
    return x * x + y * y


def quotient(part: Tensor, whole: Tensor, eps: float = 0.0) -> Tensor:
    """Return a part over a whole plus ``eps``; of nothing it is 0."""
    whole = whole + eps if eps else whole
    return part / torch.where(whole == 0, 1, whole)


def centre_distance(pair: Pair, eps: float) -> Tensor:
    """Return the squared distance of the centres over the squared diagonal of the enclosing box."""
    return quotient(squared_length(centre_offset(pair)), squared_length(enclosing_sides(pair)), eps)


def angle_mismatch(pair: Pair, eps: float) -> Tensor:
    """Return the squared angle between the diagonals of two boxes; a right angle is 1."""
    (width, height), (true_width, true_height) = (
        _direction(pair.sides, eps),
        _direction(pair.target_sides, eps),
    )
    # one arctangent, of the angle itself, because the difference of two is only as exact as the larger one
    angle = torch.atan2(true_width * height - width * true_height, height * true_height + width * true_width)
    return (angle * (2 / math.pi)).square()


def _direction(sides: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the diagonal of boxes; a point's is upright."""
    width, height = sides.unbind()
    return width, torch.where((width == 0) & (height == 0), 1, height + eps)


def aspect_penalty(loss: Tensor, mismatch: Tensor, eps: float) -> Tensor:
    """Return a mismatch of aspect ratios, weighted the more the better boxes overlap.

    The weight is a constant to the gradient, or it would reward a worse overlap.
    """
    return quotient(mismatch, loss + mismatch, eps).detach() * mismatch
