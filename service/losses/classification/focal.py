"""Losses that turn down elements that are already right, so that a few hard elements outweigh many easy ones."""

from math import log
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Between, ClassIndex, OneOf
from service.catalogue.spec import Divisor, Prediction, SizeRange, Target, Unreduced, Values
from service.losses.classification.class_axis import CountedLoss
from service.losses.exponentials import remaining
from service.losses.surprise import binary_surprise, softplus, surprise


class FocalLoss(NamedTuple):
    """A loss per element, and which of them count."""

    loss: Annotated[Tensor, Unreduced("...")]
    divisor: Annotated[Tensor, Divisor("...")]


@loss(
    title="Sigmoid focal",
    tasks=("classification", "segmentation", "detection"),
    aliases=("focal", "binary_focal", "focal_with_logits", "retinanet_focal"),
    keywords=(
        "class imbalance",
        "imbalanced binary classification",
        "hard examples",
        "object detection",
        "RetinaNet",
        "fraud",
        "anomaly detection",
    ),
    work="2 logits",
    range=(0, None),
)
def sigmoid_focal(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", Between(ignore="ignore_index", rounded=True))],
    *,
    alpha: Annotated[float, Ge(0), Le(1)] | None = 0.25,
    gamma: Annotated[float, Ge(0)] = 2.0,
    ignore_index: int | None = None,
) -> FocalLoss:
    r"""Binary cross entropy that fades for easy elements: heavy class imbalance, dense detection heads.

    Formula:
        \alpha_t\,(1 - p_t)^\gamma \left(-t \log p - (1 - t) \log(1 - p)\right),
        \quad p = \sigma(z),\ p_t = t p + (1 - t)(1 - p),\ \alpha_t = t \alpha + (1 - t)(1 - \alpha)

    Args:
        logits: Log-odds of the positive class.
        targets: 1 for the positive class, 0 for the negative one, or a probability between.
        alpha: Weight of positives, 1 - alpha being that of negatives; null weighs neither.
        gamma: How fast easy elements fade; 0 leaves binary cross entropy.
        ignore_index: Target value whose elements cost nothing and are excluded from the mean.

    Use when:
        Nearly all elements are easy negatives, as the anchors of a one-stage detector are.

    Pitfalls:
        The mean is over all elements that count, and 0 where none does. RetinaNet divides the sum by the number of positives: ask for the sum.
        The default `alpha` favours negatives; it was tuned together with `gamma` 2.

    Sources:
        - Lin et al. (2017), Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002
    """
    counted = None
    if ignore_index is not None:
        # a half type may have rounded the ignored value; nothing else can be outside of [0, 1]
        counted = (targets != ignore_index) & (targets >= 0) & (targets <= 1)
        # a negative beyond doubt costs exactly nothing
        logits, targets = torch.where(counted, logits, -1e4), torch.where(counted, targets, 0)
    cost = binary_surprise(logits, targets, 1 - targets)
    # 1 - p_t without a difference, whose digits would be gone where p_t is near 1
    miss = targets * torch.sigmoid(-logits) + (1 - targets) * torch.sigmoid(logits)
    balance = 1.0 if alpha is None else alpha * targets + (1 - alpha) * (1 - targets)
    loss = balance * _focus(miss, gamma) * cost
    return FocalLoss(loss, torch.ones_like(loss) if counted is None else counted.to(loss))


@loss(
    title="Softmax focal",
    tasks=("classification", "segmentation", "detection"),
    aliases=("categorical_focal", "multiclass_focal"),
    keywords=(
        "class imbalance",
        "imbalanced multiclass classification",
        "hard examples",
        "long tail",
    ),
    requires=(SizeRange("C", least=2),),
    range=(0, None),
)
def softmax_focal(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C", ignore="ignore_index"))],
    *,
    alpha: Annotated[float, Ge(0)] | Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
    gamma: Annotated[float, Ge(0)] = 2.0,
    ignore_index: int = -100,
) -> CountedLoss:
    r"""Cross entropy that fades for samples already right: imbalance between exclusive classes.

    Formula:
        -\alpha_y\,(1 - p_y)^\gamma \log p_y, \quad p = \operatorname{softmax}(z)

    Args:
        logits: Unnormalised log-probabilities; the second axis runs over the classes.
        targets: Index of the true class.
        alpha: Weight of the true class: one for all, or one for each class; null weighs none.
        gamma: How fast easy samples fade; 0 leaves cross entropy.
        ignore_index: Target value whose elements cost nothing and are excluded from the mean.

    Use when:
        Exactly one class is right, and most samples belong to a class that is easy to recognise.

    Pitfalls:
        `alpha` does not enter the divisor of the mean, unlike the weights of `cross_entropy`: it scales the
        loss. If every target is ignored, the mean is NaN. Faded samples still count in the mean.

    Sources:
        - Lin et al. (2017), Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002
    """
    counted = targets != ignore_index
    cost = surprise(logits, targets, ignore=ignore_index)
    balance = 1.0 if alpha is None else constant(alpha, logits)
    if isinstance(alpha, tuple):
        balance = constant(alpha, logits)[torch.where(counted, targets, 0)]
    return CountedLoss(balance * _focus(remaining(cost), gamma) * cost, counted.to(cost))


@loss(
    title="Asymmetric",
    tasks=("classification",),
    aliases=("asl",),
    keywords=(
        "multi-label classification",
        "class imbalance",
    ),
    work="3 logits",
    range=(0, None),
)
def asymmetric(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", OneOf((0.0, 1.0)))],
    *,
    gamma_neg: Annotated[float, Ge(0)] = 4.0,
    gamma_pos: Annotated[float, Ge(0)] = 1.0,
    clip: Annotated[float, Ge(0), Lt(1)] = 0.05,
    eps: Annotated[float, Gt(0)] = 1e-8,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Focal loss that drops easy negatives and fades positives less: tagging with many labels.

    Formula:
        -t\,(1 - p)^{\gamma_+} \log \max(p, \epsilon) - (1 - t)\, m^{\gamma_-} \log \max(1 - m, \epsilon),
        \quad p = \sigma(z),\ m = \max(p - c, 0)

    Args:
        logits: Log-odds of each label.
        targets: 1 where the label applies, 0 where it does not.
        gamma_neg: How fast easy negatives fade.
        gamma_pos: How fast easy positives fade.
        clip: Probability up to which a negative costs exactly nothing.
        eps: Least value inside the logarithms.

    Use when:
        Each sample has a few of very many labels, and some labels are missing from the data.

    Pitfalls:
        The gradient goes through the focusing factors too; the authors' code detaches them by default.
        Where a probability is below `eps` the logarithm is flat, and a saturated mistake teaches little.

    Sources:
        - Ben-Baruch et al. (2021), Asymmetric Loss For Multi-Label Classification,
          https://arxiv.org/abs/2009.14119
    """
    yes, no = torch.sigmoid(logits), torch.sigmoid(-logits)
    # max(p, eps) by its logarithm, which keeps the digits of a p near 1
    positive = _focus(no, gamma_pos) * softplus(-logits).clamp(max=-log(eps))
    shifted = F.relu(yes - clip)
    # log(1 - m) by m where that is small, by 1 - m = 1 - p + clip where that is
    kept = torch.where(shifted < 0.5, -(-shifted.clamp(max=0.5)).log1p(), -(no + clip).clamp(min=eps).log())
    negative = _focus(shifted, gamma_neg) * kept
    return targets * positive + (1 - targets) * negative


def _focus(miss: Tensor, gamma: float) -> Tensor:
    """Return ``miss ** gamma``, with gradient 0 at 0, where that of ``gamma < 1`` is infinite."""
    if gamma == 0:
        return torch.ones_like(miss)
    wrong = miss > 0
    return torch.where(wrong, torch.where(wrong, miss, 1.0) ** gamma, 0.0)
