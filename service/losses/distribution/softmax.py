"""Losses of the distributions that a softmax makes of logits."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.distribution.logarithms import weighted


@loss(title="Entropy", tasks=("distribution",), aliases=("confidence_penalty",))
def entropy(logits: Annotated[Tensor, Prediction("... C")]) -> Annotated[Tensor, Unreduced("...")]:
    r"""Uncertainty of a predicted distribution, to be minimised where there are no labels.

    Formula:
        -\sum_c p_c \ln p_c, \quad p = \operatorname{softmax}(z)

    Args:
        logits: Unnormalised log-probabilities along the last axis; minus infinity rules a class out.

    Use when:
        Unlabelled samples should lie away from the decision boundary; or, with its sign turned, to keep a
        classifier or a policy from growing overconfident.

    Pitfalls:
        It is minimised, which makes predictions confident. A confidence penalty subtracts it: send an
        upstream gradient of -1. Alone it is least when every sample gets the same class.

    Sources:
        - Grandvalet & Bengio (2005), Semi-supervised Learning by Entropy Minimization,
          https://papers.nips.cc/paper/2740-semi-supervised-learning-by-entropy-minimization
        - Pereyra et al. (2017), Regularizing Neural Networks by Penalizing Confident Output Distributions,
          https://arxiv.org/abs/1701.06548
    """
    log_probabilities = logits.log_softmax(-1)
    return -weighted(log_probabilities.exp(), log_probabilities).sum(-1)


@loss(
    title="Knowledge distillation",
    tasks=("distribution", "nlp"),
    aliases=("knowledge_distillation", "kd"),
)
def distillation(
    logits: Annotated[Tensor, Prediction("... C")],
    targets: Annotated[Tensor, Target("... C")],
    *,
    temperature: Annotated[float, Gt(0)] = 2.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Divergence of a student's softened predictions from those of its teacher.

    Formula:
        T^2 \sum_c q_c \ln \frac{q_c}{p_c},
        \quad q = \operatorname{softmax}(y / T),\ p = \operatorname{softmax}(z / T)

    Args:
        logits: Logits of the student, along the last axis.
        targets: Logits of the teacher, along the last axis.
        temperature: Divides both logits: the higher, the more the unlikely classes count.

    Use when:
        A small model learns from the outputs of a large one, which say how classes resemble each other.

    Pitfalls:
        The factor T^2 keeps the gradients about as large at every temperature; some codes leave it out. There
        is no term for hard labels: add `cross_entropy`. Both inputs are logits, not probabilities.

    Sources:
        - Hinton et al. (2015), Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531
    """
    student, teacher = ((scores / temperature).log_softmax(-1) for scores in (logits, targets))
    return temperature**2 * weighted(teacher.exp(), teacher - student).sum(-1)
