"""Losses of one score whose sign is the answer, for targets of -1 and 1."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import OneOf
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.surprise import softplus

SIGNS = OneOf((-1.0, 1.0), hint="labels 0 and 1 must become -1 and 1")


@loss(title="Exponential", tasks=("classification",), aliases=("adaboost", "exp"), range=(0, None))
def exponential(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Exponential of the negative margin: what AdaBoost minimises.

    Formula:
        e^{-t z}

    Args:
        logits: Scores whose sign is the answer.
        targets: 1 for the positive class, -1 for the negative one.

    Use when:
        Boosting is to be seen as a descent on a loss.

    Pitfalls:
        One outlier or one wrong label can outweigh all the rest. In float32 the value overflows for
        margins below -88 and comes back as null.

    Sources:
        - Freund and Schapire (1997), A Decision-Theoretic Generalization of On-Line Learning,
          https://doi.org/10.1006/jcss.1997.1504
    """
    return torch.exp(-targets * logits)


@loss(
    title="Hinge",
    tasks=("classification",),
    aliases=("svm", "binary_hinge"),
    range=(0, None),
    scales=Scales(1, ("logits",), along=("margin",)),
)
def hinge(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
    *,
    margin: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Linear penalty on scores that are wrong or within the margin: support vector machines.

    Formula:
        \max(0,\ \mu - t z)

    Args:
        logits: Scores whose sign is the answer.
        targets: 1 for the positive class, -1 for the negative one.
        margin: Score that an answer must have to cost nothing.

    Use when:
        A wide margin is wanted and probabilities are not.

    Pitfalls:
        Labels of 0 and 1 are refused: turn them into -1 and 1. This is not the hinge embedding loss, which
        takes distances.

    Sources:
        - Cortes and Vapnik (1995), Support-Vector Networks, https://doi.org/10.1007/BF00994018
    """
    return F.relu(margin - targets * logits)


@loss(
    title="Squared hinge",
    tasks=("classification",),
    range=(0, None),
    scales=Scales(2, ("logits",), along=("margin",)),
)
def squared_hinge(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
    *,
    margin: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared penalty on scores that are wrong or within the margin: a hinge without a kink.

    Formula:
        \max(0,\ \mu - t z)^2

    Args:
        logits: Scores whose sign is the answer.
        targets: 1 for the positive class, -1 for the negative one.
        margin: Score that an answer must have to cost nothing.

    Use when:
        A support vector machine is trained by a method that needs a smooth loss.

    Pitfalls:
        Outliers cost the square of their distance, so wrong labels pull harder than under the hinge.

    Sources:
        - Lee and Mangasarian (2001), SSVM: A Smooth Support Vector Machine for Classification,
          https://doi.org/10.1023/A:1011215321374
    """
    return F.relu(margin - targets * logits).square()


@loss(title="Perceptron", tasks=("classification",), range=(0, None), scales=Scales(1, ("logits",)))
def perceptron(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Linear penalty on scores of the wrong sign, none on the others.

    Formula:
        \max(0,\ -t z)

    Args:
        logits: Scores whose sign is the answer.
        targets: 1 for the positive class, -1 for the negative one.

    Use when:
        Only the sign matters, as in online learning by mistakes.

    Pitfalls:
        Nothing asks for a margin: scores of zero cost nothing, and neither does a model that is 0 everywhere.

    Sources:
        - Rosenblatt (1958), The Perceptron: A Probabilistic Model, https://doi.org/10.1037/h0042519
    """
    return F.relu(-targets * logits)


@loss(title="Modified Huber", tasks=("classification",), range=(0, None))
def modified_huber(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Squared hinge that turns into a line for bad mistakes: robust, and it yields probabilities.

    Formula:
        \begin{cases} \max(0,\ 1 - t z)^2 & t z \ge -1 \\ -4\, t z & t z < -1 \end{cases}

    Args:
        logits: Scores whose sign is the answer.
        targets: 1 for the positive class, -1 for the negative one.

    Use when:
        Labels have outliers, and scores are to be read as probabilities, (z + 1) / 2 cut to 0 and 1.

    Pitfalls:
        As probabilities, scores beyond -1 and 1 are indistinguishable.

    Sources:
        - Zhang (2004), Solving Large Scale Linear Prediction Problems Using Stochastic Gradient Descent
          Algorithms, https://doi.org/10.1145/1015330.1015332
    """
    lack = F.relu(1 - targets * logits)
    # the square up to a lack of 2, beyond it the tangent there
    curved = lack.clamp(max=2)
    return curved * (2 * lack - curved)


@loss(
    title="Soft margin", tasks=("classification",), aliases=("logistic", "binary_logistic"), range=(0, None)
)
def soft_margin(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Logistic loss of the margin: logistic regression with targets of -1 and 1.

    Formula:
        \log(1 + e^{-t z})

    Args:
        logits: Log-odds of the positive class.
        targets: 1 for the positive class, -1 for the negative one.

    Use when:
        Targets are -1 and 1; with 0 and 1 `binary_cross_entropy_with_logits` is the same number.

    Pitfalls:
        Written as log(1 + exp(-m)) it overflows for margins below -88 in float32; here it does not.

    Sources:
        - Cox (1958), The Regression Analysis of Binary Sequences,
          https://doi.org/10.1111/j.2517-6161.1958.tb00292.x
    """
    return softplus(-targets * logits)


@loss(title="Binary sparsemax", tasks=("classification",), range=(0, None))
def binary_sparsemax(
    logits: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", SIGNS)],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Logistic loss whose probability reaches 0 and 1: exactly no loss from a margin of 1 on.

    Formula:
        \begin{cases} 0 & t z \ge 1 \\ (1 - t z)^2 / 4 & |t z| < 1 \\ -t z & t z \le -1 \end{cases}

    Args:
        logits: Scores whose sign is the answer.
        targets: 1 for the positive class, -1 for the negative one.

    Use when:
        The posterior probability, (z + 1) / 2 cut to 0 and 1, should be exact where the model is sure.

    Pitfalls:
        Targets are -1 and 1, not the labels 0 and 1 that other implementations take.

    Sources:
        - Martins and Astudillo (2016), From Softmax to Sparsemax, https://arxiv.org/abs/1602.02068
        - Blondel et al. (2020), Learning with Fenchel-Young Losses, https://arxiv.org/abs/1901.02324
    """
    wrong = -targets * logits
    return (wrong.clamp(-1, 1) + 1).square() / 4 + F.relu(wrong - 1)
