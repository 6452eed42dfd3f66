"""Counts of pixels in which soft masks agree; every loss of region overlap is a ratio of them."""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.spec import Form, Params, given
from service.losses.segmentation.masks import Masks, Mode, ratio, soft_masks, total, without_class_axis

WORST_SCORE = 1e-7
"""The least overlap whose logarithm is taken."""

PER_REGION = [
    Form("N C", when=given(reduce_batch=False, include_background=True)),
    Form("N C-1", when=given(reduce_batch=False, include_background=False)),
    Form("C", when=given(reduce_batch=True, include_background=True)),
    Form("C-1", when=given(reduce_batch=True, include_background=False)),
    Form("N", when=given(reduce_batch=False)),
    Form("", when=given(reduce_batch=True)),
]
"""A number for each class, of each image or of the whole batch; binary masks have no axis for classes."""


class Counts(NamedTuple):
    """Soft numbers of pixels, ``[N, C]``, or ``[C]`` of the whole batch."""

    true_positives: Tensor
    false_positives: Tensor
    false_negatives: Tensor
    truths: Tensor


def count(masks: Masks, reduce_batch: bool = False) -> Counts:
    """Count over space, and over the batch if asked to."""
    # sums of small numbers, not differences of sums: a good fit in many pixels keeps its digits
    counts = total(masks.hits), total(masks.false), total(masks.missed), total(masks.truths)
    return Counts(*(maps.sum(0) for maps in counts)) if reduce_batch else Counts(*counts)


def region_counts(
    logits: Tensor,
    targets: Tensor,
    mode: Mode,
    *,
    reduce_batch: bool,
    include_background: bool,
    ignore_index: int | None,
) -> Counts:
    """Count the pixels of soft masks made of logits; binary ones have no axis for classes."""
    masks = soft_masks(
        logits, targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    return Counts(*(without_class_axis(maps, mode) for maps in count(masks, reduce_batch)))


def overlap_loss(hits: Tensor, misses: Tensor, smooth: float, *, log_loss: bool = False) -> Tensor:
    """Return one minus the score ``(hits + smooth) / (hits + misses + smooth)``, or minus its logarithm."""
    everything = hits + misses + smooth
    # one minus the score would lose the digits of a good fit
    lost = ratio(misses, everything, empty=0)
    if not log_loss:
        return lost
    score = ratio(hits + smooth, everything, empty=1)
    return torch.log1p((lost / score.clamp(min=WORST_SCORE)).clamp(max=1 / WORST_SCORE - 1))


def overlap_range(params: Params) -> tuple[float, float]:
    """Return the bounds of an overlap loss, or of minus the logarithm of an overlap."""
    return 0, -log(WORST_SCORE) if params["log_loss"] else 1


def present(loss: Tensor, truths: Tensor, zero_absent: bool) -> Tensor:
    """Return the loss, or 0 for absent classes if they are to cost nothing."""
    return torch.where(truths > 0, loss, 0) if zero_absent else loss
