"""Losses between scores of exclusive classes and the class that is right."""

from math import nan
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, ClassIndex, Simplex
from service.catalogue.spec import Divisor, Form, Prediction, SizeRange, Target, Unreduced, Values


class ClassLoss(NamedTuple):
    """A loss per sample, and what the mean divides by for it: NaN if that is nothing, as torch has it."""

    loss: Annotated[Tensor, Unreduced([Form("N ..."), Form("")])]
    divisor: Annotated[Tensor, Divisor([Form("N ..."), Form("")], empty=nan)]


@loss(
    title="Cross entropy",
    tasks=("classification", "segmentation"),
    aliases=(
        "softmax_cross_entropy",
        "multinomial_logistic_regression",
        "sparse_categorical_cross_entropy",
        "log_softmax_nll",
    ),
    requires=(SizeRange("C", least=2),),
)
def cross_entropy(
    logits: Annotated[Tensor, Prediction([Form("N C ..."), Form("N C ..."), Form("C"), Form("C")])],
    targets: Annotated[
        Tensor,
        Target(
            [
                Form("N ...", ClassIndex("C", ignore="ignore_index")),
                Form("N C ...", Simplex(axis=1)),
                Form("", ClassIndex("C", ignore="ignore_index")),
                Form("C", Simplex()),
            ]
        ),
    ],
    *,
    weight: Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
    ignore_index: int = -100,
    label_smoothing: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> ClassLoss:
    r"""Negative log-probability that a softmax gives to the true class.

    Formula:
        -\sum_c w_c\, q_c \log \frac{e^{z_c}}{\sum_k e^{z_k}},
        \quad q_c = (1 - \varepsilon)\,[c = y] + \varepsilon / C

    Args:
        logits: Unnormalised log-probabilities; the second axis runs over the classes (the only one of a
            single sample).
        targets: Index of the true class, or a probability for each class: told apart by their shape.
        weight: One weight for each class; the mean divides by the weights of the true classes.
        ignore_index: Target value whose elements cost nothing and leave the mean.
        label_smoothing: Share of the probability that is spread evenly over all classes.

    Use when:
        Exactly one class is right for each sample.

    Pitfalls:
        Takes logits: probabilities go in without an error and give a loss that barely moves. With probability
        targets the mean divides by N, whatever the weights. If every target is ignored, the mean is NaN.

    Sources:
        - Szegedy et al. (2016), Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567
    """
    weights = None if weight is None else logits.new_tensor(weight)
    loss = F.cross_entropy(
        logits, targets, weights, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
    )
    if targets.is_floating_point():
        return ClassLoss(loss, torch.ones_like(loss))
    counted = targets != ignore_index
    if weights is None:
        return ClassLoss(loss, counted.to(loss))
    return ClassLoss(loss, torch.where(counted, weights[torch.where(counted, targets, 0)], 0.0))
