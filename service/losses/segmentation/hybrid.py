"""Sums of a region overlap and a loss of pixels: one sees the object, the other gives steady gradients."""

from math import log
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Between
from service.catalogue.spec import Form, Prediction, Target, Unreduced, given
from service.losses.segmentation.domains import HardMask
from service.losses.segmentation.masks import (
    CLASSES,
    IgnorableTargets,
    MaskLogits,
    Mode,
    average,
    ratio,
    without_class_axis,
)
from service.losses.segmentation.overlap import dice
from service.losses.segmentation.pixels import pixel_loss
from service.losses.surprise import binary_surprise


@loss(
    title="Dice and cross entropy",
    tasks=("segmentation",),
    aliases=("dice_cross_entropy", "dice_bce"),
    keywords=(
        "medical image segmentation",
        "nnU-Net",
        "tumor",
        "lesion",
    ),
    requires=CLASSES,
    work=("logits", "N C/4 ..."),
    range=(0, None),
)
def dice_ce(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    dice_weight: Annotated[float, Ge(0)] = 1.0,
    ce_weight: Annotated[float, Ge(0)] = 1.0,
    smooth: Annotated[float, Ge(0)] = 1e-5,
    squared: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Dice plus cross entropy: the usual choice for medical images, robust to class imbalance.

    Formula:
        \frac{\lambda_D}{C} \sum_c D_c + \frac{\lambda_{CE}}{n} \sum_i -\ln p_{i y_i}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
            With a sigmoid the cross entropy is binary, its mean over classes too.
        dice_weight: Weight of the Dice loss.
        ce_weight: Weight of the cross entropy.
        smooth: Pixels added above and below in Dice, so that an empty mask predicted as empty costs nothing.
        squared: Whether the sums below in Dice are of squares.
        include_background: Whether the Dice loss of class 0 counts.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Nothing better is known of a segmentation.

    Pitfalls:
        The cross entropy always sees the background, also where Dice leaves it out. Each image's mean is over
        its own valid pixels; an image without any costs 0 and still counts in the mean over images.

    Sources:
        - Isensee et al. (2018), nnU-Net, https://arxiv.org/abs/1809.10486
    """
    region = _mean_dice(logits, targets, mode, smooth, squared, include_background, ignore_index)
    return dice_weight * region + ce_weight * pixel_loss(logits, targets, mode, ignore_index=ignore_index)


@loss(
    title="Dice and focal",
    tasks=("segmentation",),
    requires=CLASSES,
    work=("logits", "targets", "N C/4 ..."),
    range=(0, None),
)
def dice_focal(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    dice_weight: Annotated[float, Ge(0)] = 1.0,
    focal_weight: Annotated[float, Ge(0)] = 1.0,
    gamma: Annotated[float, Ge(0)] = 2.0,
    smooth: Annotated[float, Ge(0)] = 1e-5,
    squared: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Dice plus focal cross entropy, for small structures among many easy pixels.

    Formula:
        \frac{\lambda_D}{C} \sum_c D_c + \frac{\lambda_F}{n} \sum_i -(1 - p_{i y_i})^\gamma \ln p_{i y_i}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
            With a sigmoid the focal loss is binary, its mean over classes too.
        dice_weight: Weight of the Dice loss.
        focal_weight: Weight of the focal loss.
        gamma: How strongly easy pixels are played down; 0 gives cross entropy.
        smooth: Pixels added above and below in Dice, so that an empty mask predicted as empty costs nothing.
        squared: Whether the sums below in Dice are of squares.
        include_background: Whether the Dice loss of class 0 counts.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Dice with cross entropy is still ruled by easy pixels.

    Pitfalls:
        The focal part is a softmax one where classes exclude each other; some libraries use a sigmoid even
        there. It is much smaller than a cross entropy, so the weights do not carry over.

    Sources:
        - Zhu et al. (2019), AnatomyNet, https://arxiv.org/abs/1808.05238
        - Lin et al. (2017), Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002
    """
    region = _mean_dice(logits, targets, mode, smooth, squared, include_background, ignore_index)
    pixels = pixel_loss(logits, targets, mode, ignore_index=ignore_index, gamma=gamma)
    return dice_weight * region + focal_weight * pixels


def _mean_dice(
    logits: Tensor,
    targets: Tensor,
    mode: Mode,
    smooth: float,
    squared: bool,
    include_background: bool,
    ignore_index: int | None,
) -> Tensor:
    """Return the mean of each image's Dice losses, ``[N]``."""
    of_class = dice(
        logits,
        targets,
        mode=mode,
        smooth=smooth,
        squared=squared,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    return of_class if mode == "binary" else of_class.mean(1)


@loss(title="Combo", tasks=("segmentation",), work="2 logits", range=(0, None))
def combo(
    logits: Annotated[
        Tensor,
        Prediction(
            [Form("N ...", when=given(mode="binary")), Form("N C ...", when=given(mode="multilabel"))]
        ),
    ],
    targets: Annotated[
        Tensor,
        Target(
            [
                Form("N ...", Between(), given(mode="binary")),
                Form("N C ...", Between(), given(mode="multilabel")),
            ]
        ),
    ],
    *,
    mode: Literal["binary", "multilabel"] = "binary",
    alpha: Annotated[float, Ge(0), Le(1)] = 0.5,
    beta: Annotated[float, Ge(0), Le(1)] = 0.5,
    smooth: Annotated[float, Ge(0)] = 1e-5,
) -> Annotated[Tensor, Unreduced([Form("N C"), Form("N")])]:
    r"""Weighted cross entropy and Dice in one mixture: false alarms and misses are tuned by hand.

    Formula:
        \frac{\alpha}{n} \sum_i -\bigl(\beta y_i \ln p_i + (1 - \beta)(1 - y_i) \ln (1 - p_i)\bigr)
        + (1 - \alpha)\, D

    Args:
        logits: Score of each pixel, with a class axis if there are several masks.
        targets: The masks, hard or soft.
        mode: Whether there is one mask, or several that may overlap.
        alpha: Share of the cross entropy; the rest is Dice.
        beta: Share of the object within the cross entropy; above 0.5 misses weigh more than false alarms.
        smooth: Pixels added above and below in Dice, so that an empty mask predicted as empty costs nothing.

    Use when:
        Small organs need Dice, and the balance of misses and false alarms has to be set.

    Pitfalls:
        With `beta` 0.5 the cross entropy enters at half its size. The paper subtracts the Dice overlap, and
        is negative at a good fit; here its complement is added: the same gradient.

    Sources:
        - Taghanaki et al. (2019), Combo Loss, https://arxiv.org/abs/1805.02798
    """
    entropy = binary_surprise(logits, beta * targets, (1 - beta) * (1 - targets))
    pixels = without_class_axis(average(entropy.unsqueeze(1) if mode == "binary" else entropy), mode)
    return alpha * pixels + (1 - alpha) * dice(logits, targets, mode=mode, smooth=smooth)


LEAST_PROBABILITY = 1e-7
"""Probabilities of `unified_focal` stop here, and at one minus it."""


@loss(
    title="Unified focal",
    tasks=("segmentation",),
    aliases=("asymmetric_unified_focal",),
    work=("3 logits", "4 N"),
    range=(0, None),
)
def unified_focal(
    logits: Annotated[Tensor, Prediction("N ...")],
    targets: Annotated[Tensor, Target("N ...", HardMask(ignore="ignore_index"))],
    *,
    weight: Annotated[float, Ge(0), Le(1)] = 0.5,
    delta: Annotated[float, Ge(0), Le(1)] = 0.6,
    gamma: Annotated[float, Ge(0), Lt(1)] = 0.5,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Asymmetric focal and focal Tversky losses under three knobs: rare foreground is enhanced.

    Formula:
        \frac{\lambda}{n} \sum_i
        \bigl(-\delta y_i \ln p_i - (1 - \delta)(1 - y_i)\, p_i^\gamma \ln(1 - p_i)\bigr)
        + \frac{1 - \lambda}{2} \bigl((1 - m_0) + (1 - m_1)^{1 - \gamma}\bigr),
        \quad m_c = \frac{TP_c}{TP_c + \delta\, FN_c + (1 - \delta)\, FP_c}

    Args:
        logits: Score of each pixel; above 0 is the object.
        targets: 1 where the object is, 0 elsewhere.
        weight: Share of the pixel loss, as in the paper; the rest is the overlap, which the authors' code gives
            this share instead.
        delta: Share of the object in the pixel loss, and of misses in the overlap.
        gamma: How strongly easy background pixels are played down, and a poor object overlap is enhanced.
        ignore_index: Target value of pixels that do not count.

    Use when:
        The foreground is rare, and a single family of losses is to be tuned.

    Pitfalls:
        The pixel loss is a sum over object and background, not their mean: some libraries give half of it.
        Probabilities stop at 1e-7, so beyond logits of about 16 there is no gradient; as many pixels are
        added to the denominator of the overlap. The pixel loss is a mean over valid pixels; an image without
        any costs what a perfect one costs, and still counts in the mean over images.

    Sources:
        - Yeung et al. (2022), Unified Focal loss, https://arxiv.org/abs/2102.04525
    """
    logits, targets = logits.unsqueeze(-1).flatten(1), targets.unsqueeze(-1).flatten(1)
    valid = None if ignore_index is None else targets != ignore_index
    if valid is not None:
        logits, targets = torch.where(valid, logits, 0), torch.where(valid, targets, 0)
    object_ = targets.to(logits.dtype)
    background = 1 - object_ if valid is None else valid.to(logits.dtype) - object_
    # each by its own sigmoid: one minus the other has no digits left in float32
    (p1, log1), (p0, log0) = _clamped(logits), _clamped(-logits)
    entropy = -delta * object_ * log1 - (1 - delta) * background * p1**gamma * log0
    missed, false = (p0 * object_).sum(1), (p1 * background).sum(1)
    misses1, misses0 = delta * missed + (1 - delta) * false, delta * false + (1 - delta) * missed
    rest1 = misses1 / ((p1 * object_).sum(1) + misses1 + LEAST_PROBABILITY)
    rest0 = misses0 / ((p0 * background).sum(1) + misses0 + LEAST_PROBABILITY)
    overlap = rest0 + torch.clamp(rest1, min=LEAST_PROBABILITY) ** (1 - gamma)
    pixels = entropy.mean(1) if valid is None else ratio(entropy.sum(1), valid.sum(1), empty=0)
    return weight * pixels + (1 - weight) / 2 * overlap


def _clamped(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sigmoid of logits and its logarithm, as far from 0 and 1 as probabilities may go."""
    low, high = LEAST_PROBABILITY, 1 - LEAST_PROBABILITY
    # the logarithm of a probability near 1 has lost the digits of the difference
    return logits.sigmoid().clamp(low, high), F.logsigmoid(logits).clamp(log(low), log(high))
