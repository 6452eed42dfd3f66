"""Margins between the score of the true class and the scores of its rivals."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, ClassIndex
from service.catalogue.spec import Prediction, Scales, SizeRange, Target, Unreduced, Values
from service.losses.classification.class_axis import at_target, one_hot


@loss(
    title="Multiclass margin",
    tasks=("classification",),
    requires=(SizeRange("C", least=2),),
    work="logits",
    range=(0, None),
    scales=Scales(1, ("logits",), along=("margin",), params={"p": 1}),
)
def multi_margin(
    logits: Annotated[Tensor, Prediction("N C")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    p: Literal[1, 2] = 1,
    margin: float = 1.0,
    weight: Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Hinge against every rival class at once, averaged: multiclass support vector machines.

    Formula:
        \frac{w_y}{C} \sum_{j \ne y} \max(0,\ \mu - z_y + z_j)^p

    Args:
        logits: One score for each class.
        targets: Index of the true class.
        p: Power of the hinge.
        margin: How far the true class must be ahead of each rival.
        weight: One weight for each class, by which the loss of its samples is multiplied.

    Use when:
        Every rival should stay behind by a margin, not only the best one.

    Pitfalls:
        Divides by the number of classes, not of rivals. `weight` does not change what the mean divides by,
        unlike in `cross_entropy`.

    Sources:
        - Weston and Watkins (1999), Support Vector Machines for Multi-Class Pattern Recognition,
          https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf
    """
    classes = logits.shape[1]
    lack = F.relu(margin - at_target(logits, targets)[:, None] + logits)
    # the true class is left out before the power, whose slope at infinity minus infinity is NaN
    loss = (torch.where(one_hot(targets, classes), 0.0, lack) ** p).sum(1) / classes
    return loss if weight is None else loss * constant(weight, logits)[targets]


@loss(
    title="Categorical hinge",
    tasks=("classification",),
    aliases=("multiclass_hinge", "crammer_singer"),
    requires=(SizeRange("C", least=2),),
    work=("targets", "logits"),
    range=(0, None),
)
def categorical_hinge(
    logits: Annotated[Tensor, Prediction("N C")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Hinge between the true class and its best rival: multiclass support vector machines.

    Formula:
        \max\left(0,\ 1 + \max_{j \ne y} z_j - z_y\right)

    Args:
        logits: One score for each class.
        targets: Index of the true class.

    Use when:
        Only the margin against the best rival matters, and no probabilities are needed.

    Pitfalls:
        Two scores a sample have a gradient, so training is slow with many classes. The keras loss of this
        name takes the true class for a rival of score 0, and differs where all wrong scores are negative.

    Sources:
        - Crammer and Singer (2001), On the Algorithmic Implementation of Multiclass Kernel-based Vector
          Machines, https://www.jmlr.org/papers/v2/crammer01a.html
    """
    rivals = logits.masked_fill(one_hot(targets, logits.shape[1]), -torch.inf)
    return F.relu(1 + rivals.amax(1) - at_target(logits, targets))


@loss(
    title="Multiclass perceptron",
    tasks=("classification",),
    requires=(SizeRange("C", least=2),),
    range=(0, None),
    scales=Scales(1, ("logits",)),
)
def multiclass_perceptron(
    logits: Annotated[Tensor, Prediction("N C")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Distance of the true class from the best one: zero as soon as the answer is right.

    Formula:
        \max_j z_j - z_y

    Args:
        logits: One score for each class.
        targets: Index of the true class.

    Use when:
        Only mistakes should teach, as in the structured perceptron.

    Pitfalls:
        Nothing asks for a margin: equal scores for all classes cost nothing.

    Sources:
        - Collins (2002), Discriminative Training Methods for Hidden Markov Models,
          https://aclanthology.org/W02-1001
    """
    own = at_target(logits, targets)
    # infinity leads by nothing over itself, but minus itself it is NaN
    return torch.where(own == torch.inf, 0.0, logits.amax(1) - own)
