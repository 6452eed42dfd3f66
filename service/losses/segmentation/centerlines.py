"""Overlap of centre lines: whether thin, branching objects are connected."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.rounds import lasting, rounds
from service.catalogue.spec import Unreduced
from service.losses.segmentation.masks import (
    CLASSES,
    PER_CLASS,
    FlatMaskLogits,
    FlatMaskTargets,
    Mode,
    ratio,
    soft_masks,
    total,
    without_class_axis,
)


@loss(
    title="Soft centre-line Dice",
    tasks=("segmentation",),
    aliases=("cldice", "centerline_dice"),
    requires=CLASSES,
    work=("N C H W iterations", "N H W iterations", "512 iterations"),
)
def soft_cldice(
    logits: FlatMaskLogits,
    targets: FlatMaskTargets,
    *,
    mode: Mode = "multiclass",
    iterations: Annotated[int, Ge(0)] = 3,
    smooth: Annotated[float, Ge(0)] = 1.0,
    include_background: bool = True,
) -> Annotated[Tensor, Unreduced(PER_CLASS)]:
    r"""One minus the overlap of centre lines with masks: vessels and roads that stay connected.

    Formula:
        1 - \frac{2 a b}{a + b}, \quad a = \frac{\sum S(p)\, y + s}{\sum S(p) + s},\;
        b = \frac{\sum S(y)\, p + s}{\sum S(y) + s}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        iterations: How often the soft skeleton S erodes the mask: about half the width of the objects.
        smooth: Added above and below, so that an empty mask predicted as empty costs nothing.
        include_background: Whether class 0 has a loss of its own.

    Use when:
        Thin structures must not break: vessels, roads, cracks.

    Pitfalls:
        Says little about width: combine it with Dice. Objects wider than twice `iterations` keep no centre
        line, and the skeleton of a soft mask has a gradient only where it decides a minimum or a maximum.

    Sources:
        - Shit et al. (2021), clDice, https://arxiv.org/abs/2003.07311
    """
    probabilities, truths, _ = soft_masks(logits, targets, mode, include_background=include_background)
    precision = _covered(_skeleton(probabilities, iterations), truths, smooth)
    recall = _covered(_skeleton(truths, iterations), probabilities, smooth)
    score = ratio(2 * precision * recall, precision + recall, empty=0)
    return without_class_axis(1 - score, mode)


def _covered(lines: Tensor, masks: Tensor, smooth: float) -> Tensor:
    """Return the share of lines that lies within masks, all of them where there are none."""
    return ratio(total(lines * masks) + smooth, total(lines) + smooth, empty=1)


def _skeleton(masks: Tensor, iterations: int) -> Tensor:
    """Return what each erosion leaves that an opening would remove: thin ridges."""
    lines = torch.zeros_like(masks)
    for _ in rounds(iterations + 1):
        eroded = _erode(masks)
        ridges = F.relu(masks - _dilate(eroded))
        lines = lines + F.relu(ridges - lines * ridges)
        masks = lasting(eroded)
    return lines


def _erode(masks: Tensor) -> Tensor:
    """Return the minimum over each pixel's cross."""
    # as a maximum of the negative: its padding never wins, where zeros would erode the border
    vertical = -F.max_pool2d(-masks, (3, 1), 1, (1, 0))
    horizontal = -F.max_pool2d(-masks, (1, 3), 1, (0, 1))
    return torch.minimum(vertical, horizontal)


def _dilate(masks: Tensor) -> Tensor:
    """Return the maximum over each pixel's square."""
    return F.max_pool2d(masks, 3, 1, 1)
