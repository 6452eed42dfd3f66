"""Overlap of centre lines: whether thin, branching objects are connected."""

from functools import reduce
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
    FlatOrVolumeLogits,
    FlatOrVolumeTargets,
    Mode,
    kept,
    ratio,
    soft_masks,
    total,
    without_class_axis,
)


@loss(
    title="Soft centre-line Dice",
    tasks=("segmentation",),
    aliases=("cldice", "centerline_dice"),
    keywords=(
        "vessels",
        "roads",
        "tubular structures",
        "topology",
        "cracks",
    ),
    requires=CLASSES,
    range=(0, 1),
    # volumes take about twice as much
    work=("4 logits iterations", "17 logits", "5 N C D H W iterations", "5 N D H W iterations"),
    overhead=("4096 iterations", "2048 iterations D/65536"),
)
def soft_cldice(
    logits: FlatOrVolumeLogits,
    targets: FlatOrVolumeTargets,
    *,
    mode: Mode = "multiclass",
    iterations: Annotated[int, Ge(0)] = 3,
    smooth: Annotated[float, Ge(0)] = 1.0,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_CLASS)]:
    r"""One minus the overlap of centre lines with masks: vessels and roads that stay connected.

    Formula:
        1 - \frac{2 a b}{a + b}, \quad a = \frac{\sum S(p)\, y + s}{\sum S(p) + s},\;
        b = \frac{\sum S(y)\, p + s}{\sum S(y) + s}

    Args:
        logits: Scores of each pixel of images or volumes, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        iterations: How often the soft skeleton S erodes the mask: at least half the width of the objects.
        smooth: Pixels added above and below, so that an empty mask predicted as empty costs nothing.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count; like those beyond the border, they take no part in
            a minimum or maximum.

    Use when:
        Thin structures must not break: vessels, roads, cracks.

    Pitfalls:
        Says little about width: combine it with Dice. Objects wider than 2 (`iterations` + 1) pixels keep no
        centre line and are not seen at all. The skeleton of a soft mask has a gradient only where it decides a
        minimum or a maximum. An image without a valid pixel costs 0 and still counts in the mean over images.

    Sources:
        - Shit et al. (2021), clDice, https://arxiv.org/abs/2003.07311
    """
    # in float64, which distinguishes values that are equal in float32: the least and greatest neighbour of a pixel
    masks = soft_masks(
        logits.double(), targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    probabilities, truths = masks.probabilities, masks.truths
    false = _uncovered(_skeleton(probabilities, masks.valid, iterations), truths, smooth)
    missed = _uncovered(_skeleton(truths, masks.valid, iterations), probabilities, smooth)
    precision, recall = 1 - false, 1 - missed
    # one minus the harmonic mean would lose the digits of a good fit
    lost = ratio(false * recall + missed * precision, precision + recall, empty=1)
    return without_class_axis(lost, mode).to(logits.dtype)


def _uncovered(lines: Tensor, masks: Tensor, smooth: float) -> Tensor:
    """Return the share of lines that lies outside of masks, nothing where there are none."""
    covered = lines * masks
    return ratio(total(lines - covered), total(lines) + smooth, empty=0)


def _skeleton(masks: Tensor, valid: Tensor | None, iterations: int) -> Tensor:
    """Return the thin ridges that an opening would remove after each erosion; they are 0 where pixels do not count."""
    # each a batch of one channel: torch pools no batch of no channels
    maps = masks.flatten(0, 1).unsqueeze(1)
    counted = None if valid is None else valid.expand_as(masks).flatten(0, 1).unsqueeze(1)
    lines = torch.zeros_like(maps)
    for _ in rounds(iterations + 1):
        # more than any minimum, less than any maximum: like the border, pixels that do not count never win
        eroded = _erode(kept(maps, counted, 2))
        ridges = F.relu(kept(maps - _dilate(kept(eroded, counted, -1)), counted))
        lines = lines + F.relu(ridges - lines * ridges)
        maps = lasting(eroded)
    return lines.reshape(masks.shape)


def _erode(masks: Tensor) -> Tensor:
    """Return the minimum over each pixel's cross, which has an arm along each axis of space."""
    axes = masks.dim() - 2
    # as a maximum of the negative: its padding never wins, where zeros would erode the border
    arms = [-_greatest(-masks, [3 if axis == arm else 1 for axis in range(axes)]) for arm in range(axes)]
    return reduce(torch.minimum, arms)


def _dilate(masks: Tensor) -> Tensor:
    """Return the maximum over each pixel's square, or cube."""
    return _greatest(masks, [3] * (masks.dim() - 2))


def _greatest(masks: Tensor, window: list[int]) -> Tensor:
    """Return the maximum in a window around each pixel."""
    pool = F.max_pool2d if len(window) == 2 else F.max_pool3d
    return pool(masks, window, 1, [side // 2 for side in window])
