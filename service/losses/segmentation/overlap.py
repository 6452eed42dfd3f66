"""Losses of region overlap, where true and predicted pixels are counted together for each class."""

from math import cosh, log
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Form, Unreduced, given
from service.losses.segmentation.counts import (
    PER_REGION,
    Counts,
    count,
    overlap_loss,
    overlap_range,
    present,
    region_counts,
)
from service.losses.segmentation.masks import (
    CLASSES,
    IgnorableTargets,
    MaskLogits,
    Mode,
    soft_masks,
    total,
    without_class_axis,
)

LEAST_LOSS = 1e-7
"""Smaller losses count as this one before a power is taken whose slope at 0 is infinite."""


@loss(
    title="Dice",
    tasks=("segmentation",),
    aliases=("soft_dice", "f1_mask"),
    requires=CLASSES,
    work="2 logits",
    range=overlap_range,
)
def dice(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    smooth: Annotated[float, Ge(0)] = 1e-5,
    squared: bool = False,
    log_loss: bool = False,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
    zero_absent: bool = False,
) -> Annotated[Tensor, Unreduced(PER_REGION)]:
    r"""One minus the soft Dice (F1) overlap of each class: against class imbalance in masks.

    Formula:
        1 - \frac{2 \sum p y + s}{\sum p + \sum y + s}, \quad p = \mathrm{softmax}(z) \text{ or } \sigma(z)

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        smooth: Pixels added above and below, so that an empty mask predicted as empty costs nothing.
        squared: Whether the sums below are of squares, as in V-Net.
        log_loss: Whether the loss is minus the logarithm of the overlap, or of 1e-7 where that is more.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count.
        zero_absent: Whether a class without a true pixel costs nothing.

    Use when:
        The foreground is a small part of the image, and the metric is Dice or F1.

    Pitfalls:
        Counted per image, then averaged; counted over the batch the numbers differ. A class that is absent
        costs nearly 1 as soon as a pixel is predicted: a larger `smooth` softens that, and biases small
        objects. With `zero_absent` absent classes still count in the mean.

    Sources:
        - Milletari et al. (2016), V-Net, https://arxiv.org/abs/1606.04797
        - Drozdzal et al. (2016), The Importance of Skip Connections, https://arxiv.org/abs/1608.04117
    """
    masks = soft_masks(
        logits, targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    if squared:
        wrong = masks.false - masks.missed
        sums = total(2 * masks.hits), total(wrong.square()), total(masks.truths)
        hits, misses, area = (part.sum(0) for part in sums) if reduce_batch else sums
    else:
        counts = count(masks, reduce_batch)
        hits, misses = 2 * counts.true_positives, counts.false_positives + counts.false_negatives
        area = counts.truths
    region = overlap_loss(hits, misses, smooth, log_loss=log_loss)
    return without_class_axis(present(region, area, zero_absent), mode)


@loss(
    title="Jaccard",
    tasks=("segmentation",),
    aliases=("soft_iou", "mask_iou", "soft_jaccard"),
    requires=CLASSES,
    work="2 logits",
    range=overlap_range,
)
def jaccard(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    smooth: Annotated[float, Ge(0)] = 1e-5,
    log_loss: bool = False,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
    zero_absent: bool = False,
) -> Annotated[Tensor, Unreduced(PER_REGION)]:
    r"""One minus the soft intersection over union of each class: when the metric is mean IoU.

    Formula:
        1 - \frac{\sum p y + s}{\sum p + \sum y - \sum p y + s}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        smooth: Pixels added above and below, so that an empty mask predicted as empty costs nothing.
        log_loss: Whether the loss is minus the logarithm of the overlap, or of 1e-7 where that is more.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count.
        zero_absent: Whether a class without a true pixel costs nothing.

    Use when:
        Masks are judged by their intersection over union.

    Pitfalls:
        A soft intersection is a product of probabilities: soft targets do not reach a loss of 0 even when
        predicted exactly. Some libraries add `smooth` to twice the sums, which halves it.

    Sources:
        - Rahman and Wang (2016), Optimizing Intersection-Over-Union in Deep Neural Networks,
          https://doi.org/10.1007/978-3-319-50835-1_22
    """
    counts = region_counts(
        logits,
        targets,
        mode,
        reduce_batch=reduce_batch,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    misses = counts.false_positives + counts.false_negatives
    region = overlap_loss(counts.true_positives, misses, smooth, log_loss=log_loss)
    return present(region, counts.truths, zero_absent)


@loss(title="Tversky", tasks=("segmentation",), requires=CLASSES, work="2 logits", range=overlap_range)
def tversky(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    alpha: Annotated[float, Ge(0)] = 0.3,
    beta: Annotated[float, Ge(0)] = 0.7,
    smooth: Annotated[float, Ge(0)] = 1e-5,
    log_loss: bool = False,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
    zero_absent: bool = False,
) -> Annotated[Tensor, Unreduced(PER_REGION)]:
    r"""One minus an overlap that weighs false positives against misses: precision or recall in masks.

    Formula:
        1 - \frac{TP + s}{TP + \alpha\, FP + \beta\, FN + s},
        \quad TP = \sum p y,\; FP = \sum p (1 - y),\; FN = \sum (1 - p) y

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        alpha: Weight of false positives.
        beta: Weight of false negatives; above `alpha` it favours recall.
        smooth: Pixels added above and below, so that an empty mask predicted as empty costs nothing.
        log_loss: Whether the loss is minus the logarithm of the overlap, or of 1e-7 where that is more.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count.
        zero_absent: Whether a class without a true pixel costs nothing.

    Use when:
        A missed pixel is worse than a false one, as with lesions, or the other way round.

    Pitfalls:
        `alpha` weighs false positives here, as in most libraries; some papers swap the letters. With both 0.5
        it is Dice, but with twice the `smooth`.

    Sources:
        - Salehi et al. (2017), Tversky loss function for image segmentation, https://arxiv.org/abs/1706.05721
    """
    counts = region_counts(
        logits,
        targets,
        mode,
        reduce_batch=reduce_batch,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    misses = alpha * counts.false_positives + beta * counts.false_negatives
    region = overlap_loss(counts.true_positives, misses, smooth, log_loss=log_loss)
    return present(region, counts.truths, zero_absent)


@loss(
    title="Focal Tversky",
    tasks=("segmentation",),
    requires=CLASSES,
    work="logits",
    range=lambda params: (LEAST_LOSS ** (1 / params["gamma"]), 1),
)
def focal_tversky(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    alpha: Annotated[float, Ge(0)] = 0.3,
    beta: Annotated[float, Ge(0)] = 0.7,
    gamma: Annotated[float, Gt(0)] = 4 / 3,
    smooth: Annotated[float, Ge(0)] = 1e-5,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_REGION)]:
    r"""Tversky loss to a power that changes how much hard classes count: for tiny lesions.

    Formula:
        \max(1 - s, 10^{-7})^{1 / \gamma},
        \quad s = \frac{TP + \epsilon}{TP + \alpha\, FP + \beta\, FN + \epsilon}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        alpha: Weight of false positives.
        beta: Weight of false negatives; above `alpha` it favours recall.
        gamma: The power is one over it: above 1, small losses keep steep gradients.
        smooth: Pixels added above and below, so that an empty mask predicted as empty has the full score.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Objects are tiny, and training with the Tversky loss stalls on them.

    Pitfalls:
        The power is `1 / gamma`, of each class's loss, not `gamma`, and not of the mean. It is steepest at a
        perfect fit, so the loss never falls below a small positive number, where its gradient is 0.

    Sources:
        - Abraham and Khan (2019), A Novel Focal Tversky Loss Function, https://arxiv.org/abs/1810.07842
    """
    counts = region_counts(
        logits,
        targets,
        mode,
        reduce_batch=reduce_batch,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    misses = alpha * counts.false_positives + beta * counts.false_negatives
    return overlap_loss(counts.true_positives, misses, smooth).clamp(min=LEAST_LOSS) ** (1 / gamma)


@loss(
    title="Log-cosh Dice", tasks=("segmentation",), requires=CLASSES, work="logits", range=(0, log(cosh(1)))
)
def log_cosh_dice(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    smooth: Annotated[float, Ge(0)] = 1e-5,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_REGION)]:
    r"""Logarithm of the hyperbolic cosine of the Dice loss, which is flat near a perfect fit.

    Formula:
        \ln \cosh(1 - s), \quad s = \frac{2 \sum p y + \epsilon}{\sum p + \sum y + \epsilon}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        smooth: Pixels added above and below, so that an empty mask predicted as empty costs nothing.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count.

    Use when:
        The Dice loss jumps about towards the end of training.

    Pitfalls:
        At most 0.43, and its gradient vanishes near a perfect fit: it needs a larger weight than Dice beside
        another loss.

    Sources:
        - Jadon (2020), A survey of loss functions for semantic segmentation, https://arxiv.org/abs/2006.14822
    """
    counts = region_counts(
        logits,
        targets,
        mode,
        reduce_batch=reduce_batch,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    misses = counts.false_positives + counts.false_negatives
    distance = overlap_loss(2 * counts.true_positives, misses, smooth)
    # cosh x = 1 + 2 sinh^2(x / 2), and log1p keeps the digits of a good fit
    return torch.log1p(2 * torch.sinh(distance / 2).square())


@loss(
    title="Generalised Dice",
    tasks=("segmentation",),
    aliases=("gdl",),
    requires=CLASSES,
    work="logits",
    range=(0, 1),
)
def generalized_dice(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    weight_type: Literal["square", "simple", "uniform"] = "square",
    smooth: Annotated[float, Ge(0)] = 1e-5,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[
    Tensor, Unreduced([Form("N", when=given(reduce_batch=False)), Form("", when=given(reduce_batch=True))])
]:
    r"""One Dice overlap of all classes together, rare ones weighing more: strong class imbalance.

    Formula:
        1 - \frac{2 \sum_c w_c \sum p_c y_c + s}{\sum_c w_c (\sum p_c + \sum y_c) + s},
        \quad w_c = \left(\frac{\min_k \sum y_k}{\sum y_c}\right)^2

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        weight_type: Weight of a class: one over its squared size, one over its size, or one; the largest is 1.
        smooth: Pixels of the smallest class added above and below, so that an empty mask predicted as empty
            costs nothing.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 counts.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Classes differ in size by orders of magnitude.

    Pitfalls:
        A class that an image lacks takes the largest weight of that image, so a few
        false positives there cost much. Weights are those of the targets, and carry no gradient. They are
        relative to the smallest class: where a weight is 1 over a squared size itself, as in some libraries,
        any `smooth` outweighs the classes of a large image.

    Sources:
        - Sudre et al. (2017), Generalised Dice overlap, https://arxiv.org/abs/1707.03237
    """
    masks = soft_masks(
        logits, targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    counts = count(masks, reduce_batch)
    weights = _class_weights(counts.truths.detach(), weight_type)
    hits = (weights * 2 * counts.true_positives).sum(-1)
    misses = (weights * (counts.false_positives + counts.false_negatives)).sum(-1)
    return overlap_loss(hits, misses, smooth)


def _class_weights(sizes: Tensor, weight_type: Literal["square", "simple", "uniform"]) -> Tensor:
    """Weigh classes by how much larger than the smallest they are; an empty one as the smallest."""
    power = {"square": 2, "simple": 1, "uniform": 0}[weight_type]
    filled = torch.where(sizes > 0, sizes, torch.inf)
    smallest = filled.amin(-1, keepdim=True)
    return torch.where(sizes > 0, smallest / filled, 1).pow(power)


NOTHING = 1e-37
"""Fewer pixels than this count as none: float32 could not distinguish such numbers."""


@loss(
    title="Matthews correlation",
    tasks=("segmentation",),
    aliases=("matthews", "phi_coefficient"),
    requires=CLASSES,
    work="3 logits",
    range=(0, 2),
)
def mcc(
    logits: MaskLogits,
    targets: IgnorableTargets,
    *,
    mode: Mode = "multiclass",
    eps: Annotated[float, Ge(0)] = 1e-5,
    reduce_batch: bool = False,
    include_background: bool = True,
    ignore_index: int | None = None,
) -> Annotated[Tensor, Unreduced(PER_REGION)]:
    r"""One minus the Matthews correlation of masks: true negatives count too, for unbalanced masks.

    Formula:
        1 - \frac{TP \cdot TN - FP \cdot FN}
        {\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN) + \varepsilon}}

    Args:
        logits: Scores of each pixel, with a class axis unless the masks are binary.
        targets: Class index of each pixel (multiclass), or the masks themselves, hard or soft.
        mode: Whether classes exclude each other (softmax), overlap (sigmoid), or there is but one (sigmoid).
        eps: Added inside the root to a product of four numbers of pixels, one of which is 0 if there is
            nothing of a class or nothing else.
        reduce_batch: Whether pixels are counted over the whole batch, not image by image.
        include_background: Whether class 0 is included.
        ignore_index: Target value of pixels that do not count.

    Use when:
        Object and surroundings both matter, and neither may be all that is predicted.

    Pitfalls:
        Ranges from 0 to 2. The correlation of an empty mask is 0 (a loss of 1) however few pixels are
        predicted, unless none is at all: then the loss is 0.

    Sources:
        - Abhishek and Hamarneh (2021), Matthews Correlation Coefficient Loss, https://arxiv.org/abs/2010.13454
    """
    masks = soft_masks(
        logits, targets, mode, include_background=include_background, ignore_index=ignore_index
    )
    negatives = masks.truths - 1 if masks.valid is None else torch.where(masks.valid, masks.truths - 1, 0)
    true_negatives = total((masks.probabilities - 1) * negatives)
    tn = true_negatives.sum(0) if reduce_batch else true_negatives
    counts = count(masks, reduce_batch)
    loss = _one_minus_correlation(counts, tn, eps)
    perfect = counts.false_positives + counts.false_negatives < NOTHING
    return without_class_axis(torch.where(perfect, 0, loss), mode)


def _one_minus_correlation(counts: Counts, tn: Tensor, eps: float) -> Tensor:
    """Return one minus the correlation of two masks; nothing correlates with an empty or a full one."""
    tp, fp, fn, _ = counts
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + eps
    covariance = tp * tn - fp * fn
    # the product less the square of the covariance, multiplied out: nothing in it is subtracted
    rest = (tp * tn + fp * fn) * (tp + tn) * (fp + fn) + (tp * fn + fp * tn) * (tp * fp + fn * tn)
    rest = rest + 4 * (tp * tn) * (fp * fn) + eps
    nothing = product == 0
    root = torch.where(nothing, 1, product).sqrt()
    alike = rest / (root * (root + covariance.clamp(min=0)))
    return torch.where(nothing, 1, torch.where(covariance > 0, alike, 1 - covariance / root))
