"""Losses of the distributions that a softmax makes of logits."""

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.digits import sloped


@loss(
    title="Entropy", tasks=("distribution",), aliases=("confidence_penalty",), work="logits", range=(0, None)
)
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
    # an infinite logit is the largest by far, and less itself 0
    finite = logits.detach().clamp(max=torch.finfo(logits.dtype).max)
    below = finite - finite.amax(-1, keepdim=True)
    shares = below.exp()
    # the sum less the 1 of the largest, in float64: what is certain has a logarithm of exactly what is left
    log_total = torch.log1p(shares.sum(-1, keepdim=True, dtype=torch.float64) - 1).to(below.dtype)
    # finite, so that an impossible class takes 0 times it
    surprise = (log_total - below).clamp(max=torch.finfo(below.dtype).max)
    probabilities = shares / log_total.exp()
    uncertainty = (probabilities * surprise).sum(-1, keepdim=True)
    return sloped(
        uncertainty[..., 0],
        (probabilities, surprise, uncertainty),
        (logits, lambda probabilities, surprise, uncertainty: probabilities * (surprise - uncertainty)),
    )


@loss(
    title="Knowledge distillation",
    tasks=("distribution", "nlp"),
    aliases=("knowledge_distillation", "kd"),
    keywords=(
        "knowledge distillation",
        "teacher and student",
        "model compression",
        "soft labels",
    ),
    work="logits",
    range=(0, None),
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
    # in float64: the divergence is of second order in the differences, which are small at high temperatures
    student, teacher = (_log_softmax(scores, temperature) for scores in (logits, targets))
    known = teacher.exp()
    # in place, as large tensors cost most where they are made. What the teacher rules out costs nothing
    gap = teacher.neg_().add_(student).masked_fill_(known == 0, 0.0)
    surplus, moments = student.exp_().sub_(known), _moments(known, gap)
    # near the teacher, of e^g - 1 - g, whose weighted sum is that of -g: both distributions sum to 1
    divergence = torch.where(_near(gap), moments[1] / 2 + moments[2] / 6, -moments[0])
    return sloped(
        temperature**2 * divergence[..., 0].clamp(min=0).to(logits.dtype),
        (surplus, known, gap, divergence),
        (logits, lambda surplus, known, gap, divergence: temperature * surplus),
        (targets, lambda surplus, known, gap, divergence: -temperature * known * (gap + divergence)),
    )


def _log_softmax(scores: Tensor, temperature: float) -> Tensor:
    """Return the logarithms of softened probabilities in float64; an infinite score is the largest by far."""
    finite = scores.detach().clamp(max=torch.finfo(scores.dtype).max)
    return finite.double().div_(temperature).log_softmax(-1)


def _moments(weights: Tensor, values: Tensor) -> list[Tensor]:
    """Return the weighted sums of values, of their squares and of their cubes."""
    weighted = weights * values
    found = [weighted.sum(-1, keepdim=True)]
    for _ in range(2):
        found.append(weighted.mul_(values).sum(-1, keepdim=True))
    return found


def _near(gaps: Tensor) -> Tensor:
    """Return whether all logarithms of ratios in a row are so small that three terms of a series do."""
    return torch.maximum(gaps.amax(-1, keepdim=True), -gaps.amin(-1, keepdim=True)) < 1e-4
