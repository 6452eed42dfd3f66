"""Counts of wrong answers: for reports, without a gradient."""

from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex, OneOf
from service.catalogue.spec import Prediction, Scales, SizeRange, Target, Unreduced


@loss(
    title="Zero-one",
    tasks=("classification",),
    aliases=("misclassification", "01"),
    keywords=(
        "accuracy",
        "error rate",
        "misclassification",
    ),
    differentiable=False,
    requires=(SizeRange("C", least=2),),
    range=(0, 1),
    scales=Scales(0, ("logits",)),
)
def zero_one(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N ...")]:
    r"""1 where the class of the largest score is wrong, 0 where it is right: the error rate.

    Formula:
        [\arg\max_c z_c \ne y]

    Args:
        logits: One score for each class, in any unit; the second axis runs over the classes.
        targets: Index of the true class.

    Use when:
        A model is reported on, not trained.

    Pitfalls:
        Has no gradient: train with a surrogate such as `cross_entropy`. Of equal scores the lowest class
        is taken.

    Sources:
        - Vapnik (1999), An Overview of Statistical Learning Theory, https://doi.org/10.1109/72.788640
    """
    score, chosen = logits.max(1)
    return torch.where(score.isnan(), score, (chosen != targets).to(score))


@loss(
    title="Hamming",
    tasks=("classification",),
    differentiable=False,
    range=(0, 1),
    scales=Scales(0, ("logits",), along=("threshold",)),
)
def hamming(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", OneOf((0.0, 1.0)))],
    *,
    threshold: float = 0.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""1 for each label that is predicted wrongly, 0 for the others: multilabel error rate.

    Formula:
        [(z > \theta) \ne t]

    Args:
        logits: Scores of the labels.
        targets: 1 where the label applies, 0 where it does not.
        threshold: Score above which a label counts as predicted: 0 for logits, 0.5 for probabilities.

    Use when:
        A multilabel model is reported on, and a label too many is as bad as one too few.

    Pitfalls:
        Has no gradient. With many labels of which few apply, predicting none looks good. A score equal to
        the threshold counts as negative.

    Sources:
        - Tsoumakas and Katakis (2007), Multi-Label Classification: An Overview,
          https://doi.org/10.4018/jdwm.2007070101
    """
    return torch.where(logits.isnan(), logits, ((logits > threshold) != (targets == 1)).to(logits))
