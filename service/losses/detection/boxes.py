"""What axis-aligned box losses share: formats, which boxes are valid, overlap, enclosing box, distance."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Gt
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts
from service.catalogue.spec import Diagnostic, Prediction, Target, Unreduced

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Two corners; the top-left corner and the sides; the centre and the sides."""

Epsilon = Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True)
class Boxes(Domain):
    """Boxes along the last axis, in the format that the param ``box_format`` names."""

    def describe(self) -> str:
        return "boxes with sides of at least 0, so x2 >= x1 and y2 >= y1 in box_format xyxy"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        first, second = values.chunk(2, -1)
        least = first if facts.params["box_format"] == "xyxy" else torch.zeros_like(first)
        # a box that is infinite or NaN somewhere is no inverted box: it is for the roles to refuse it
        inverted = (second < least) & second.isfinite() & least.isfinite()
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


class Box(NamedTuple):
    """Top-left corner, bottom-right corner and sides of boxes; x and y lie along the first axis."""

    near: Tensor
    far: Tensor
    sides: Tensor


def read(boxes: Tensor, box_format: BoxFormat) -> Box:
    """Return boxes ``[..., 4]`` of a format by corners and sides, ``[2, ...]`` each."""
    # whole columns of x and y in a row of memory: arithmetic on every fourth number is several times slower
    first, second = boxes.movedim(-1, 0).contiguous().chunk(2)
    match box_format:
        case "xyxy":
            return Box(first, second, second - first)
        case "xywh":
            return Box(first, first + second, second)
        case "cxcywh":
            return Box(first - second / 2, first + second / 2, second)


def read_pair(boxes: Tensor, targets: Tensor, box_format: BoxFormat) -> tuple[Box, Box]:
    """Return predicted and target boxes by corners and sides."""
    return read(boxes, box_format), read(targets, box_format)


def area(sides: Tensor) -> Tensor:
    """Return the area that sides ``[2, ...]`` span."""
    width, height = sides.unbind()
    return width * height


def intersection(box: Box, target: Box) -> Tensor:
    """Return the area that two boxes share, 0 where they lie apart or only touch."""
    return area(torch.relu(torch.minimum(box.far, target.far) - torch.maximum(box.near, target.near)))


class Overlap(NamedTuple):
    """Intersection over union of two boxes, and the union."""

    iou: Tensor
    union: Tensor


def overlap(box: Box, target: Box, eps: float) -> Overlap:
    """Return how much of the area that two boxes cover is covered by both."""
    shared = intersection(box, target)
    union = area(box.sides) + area(target.sides) - shared
    return Overlap(shared / (union + eps), union)


def enclosing_sides(box: Box, target: Box) -> Tensor:
    """Return the sides of the smallest box around two boxes."""
    return torch.maximum(box.far, target.far) - torch.minimum(box.near, target.near)


def centre_offset(box: Box, target: Box) -> Tensor:
    """Return where the centre of ``box`` lies as seen from that of ``target``."""
    return ((box.near - target.near) + (box.far - target.far)) / 2


def squared_length(vectors: Tensor) -> Tensor:
    """Return the squared length of vectors ``[2, ...]``."""
    x, y = vectors.unbind()
    return x * x + y * y


def centre_distance(box: Box, target: Box, eps: float) -> Tensor:
    """Return the squared distance of the centres over the squared diagonal of the enclosing box."""
    diagonal = squared_length(enclosing_sides(box, target)) + eps
    return squared_length(centre_offset(box, target)) / diagonal


def aspect_ratio(box: Box, eps: float) -> Tensor:
    """Return width over height."""
    width, height = box.sides.unbind()
    return width / (height + eps)


def angle_mismatch(box: Box, target: Box, eps: float) -> Tensor:
    """Return the squared angle between the diagonals of two boxes; a right angle is 1."""
    angle = aspect_ratio(target, eps).atan() - aspect_ratio(box, eps).atan()
    return (angle * (2 / math.pi)).square()


def aspect_penalty(iou: Tensor, mismatch: Tensor, eps: float) -> Tensor:
    """Return a mismatch of aspect ratios, weighted the more the better boxes overlap.

    The weight is a constant to the gradient, or it would reward a worse overlap.
    """
    weight = mismatch / (1 - iou + mismatch + eps)
    return weight.detach() * mismatch
