"""Cross entropy between scores of exclusive classes and the class that is right, however the scores come."""

from math import log, nan
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import Above, AtLeast, ClassIndex, LogProbabilities, Simplex
from service.catalogue.spec import Divisor, Form, Prediction, SizeRange, Target, Unreduced, Values
from service.losses.classification.class_axis import CountedLoss
from service.losses.surprise import counted_surprise, soft_surprise, surprise


class ClassLoss(NamedTuple):
    """A `CountedLoss` that may also be that of a single sample."""

    loss: Annotated[Tensor, Unreduced([Form("N ..."), Form("")])]
    divisor: Annotated[Tensor, Divisor([Form("N ..."), Form("")], empty=nan)]


class RowLoss(NamedTuple):
    """A `CountedLoss` of rows without further axes."""

    loss: Annotated[Tensor, Unreduced("N")]
    divisor: Annotated[Tensor, Divisor("N", empty=nan)]


@loss(
    title="Cross entropy",
    tasks=("classification", "segmentation"),
    aliases=(
        "softmax_cross_entropy",
        "multinomial_logistic_regression",
        "sparse_categorical_cross_entropy",
        "log_softmax_nll",
    ),
    keywords=(
        "multiclass classification",
        "softmax classifier",
        "image classification",
        "logistic regression",
        "log loss",
    ),
    requires=(SizeRange("C", least=2),),
    range=(0, None),
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
        targets: Index of the true class, or a probability for each class: distinguished by their shape.
        weight: One weight for each class; the mean divides by the weights of the true classes.
        ignore_index: Target value whose elements cost nothing and are excluded from the mean.
        label_smoothing: Share of the probability that is spread evenly over all classes, the true one too.

    Use when:
        Exactly one class is right for each sample, or each pixel.

    Pitfalls:
        Takes logits: probabilities go in without an error and give a loss that barely moves. With probability
        targets the mean divides by N, whatever the weights. If every target is ignored, the mean is NaN. With
        smoothing, each class's weight scales its own share of the spread probability. An ignored element has
        no gradient, whatever its logits.

    Sources:
        - Szegedy et al. (2016), Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567
    """
    weights = None if weight is None else constant(weight, logits)
    if targets.is_floating_point():
        return _from_probabilities(logits, targets, weights, label_smoothing)
    axis = min(1, logits.dim() - 1)
    loss, share = counted_surprise(logits, targets, axis, ignore=ignore_index)
    if weights is not None:
        share = _share(targets, weights, ignore_index)
        loss = torch.where(share == 0, 0.0, loss * share)
    if label_smoothing:
        counted = targets != ignore_index
        # inside and outside: values at ignored elements must not reach the gradient
        known = torch.where(counted.unsqueeze(axis), logits, 0.0)
        even = torch.full_like(logits, 1 / logits.shape[axis])
        spread = torch.where(counted, _from_probabilities(known, even, weights, 0.0).loss, 0.0)
        loss = (1 - label_smoothing) * loss + label_smoothing * spread
    return ClassLoss(loss, share)


@loss(
    title="Negative log-likelihood",
    tasks=("classification",),
    aliases=("negative_log_likelihood",),
    keywords=(
        "log probabilities",
        "log-likelihood",
    ),
    requires=(SizeRange("C", least=2),),
    range=lambda params: (-1e-6 * max(params["weight"] or (1.0,)), None),
)
def nll(
    log_probabilities: Annotated[Tensor, Prediction("N C ...", LogProbabilities(axis=1))],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C", ignore="ignore_index"))],
    *,
    weight: Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
    ignore_index: int = -100,
) -> CountedLoss:
    r"""Negative log-probability of the true class, for models that end in a log-softmax.

    Formula:
        -w_y \log p_y

    Args:
        log_probabilities: Logarithms of class probabilities; the second axis runs over the classes.
        targets: Index of the true class.
        weight: One weight for each class; the mean divides by the weights of the true classes.
        ignore_index: Target value whose elements cost nothing and are excluded from the mean.

    Use when:
        The model already returns log-probabilities.

    Pitfalls:
        Probabilities in place of their logarithms give a loss that is negative and means nothing; they are
        refused here. From logits use `cross_entropy`. If every target is ignored, the mean is NaN.

    Sources:
        - Bishop (2006), Pattern Recognition and Machine Learning, section 4.3.4
    """
    weights = None if weight is None else constant(weight, log_probabilities)
    loss = F.nll_loss(log_probabilities, targets, weights, ignore_index=ignore_index, reduction="none")
    share = _share(targets, loss.new_ones(()) if weights is None else weights, ignore_index)
    return CountedLoss(torch.where(share == 0, 0.0, loss), share)


@loss(
    title="Linear cross entropy",
    tasks=("classification",),
    requires=(SizeRange("C", least=2),),
    work="N C D/512",
    range=(0, None),
)
def linear_cross_entropy(
    features: Annotated[Tensor, Prediction("N D")],
    weights: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C", ignore="ignore_index"))],
    *,
    weight: Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
    ignore_index: int = -100,
    label_smoothing: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> RowLoss:
    r"""Cross entropy of a linear layer over features, such as the output layer of a large vocabulary.

    Formula:
        -\sum_c w_c\, q_c \log \frac{e^{z_c}}{\sum_k e^{z_k}},
        \quad z_c = f \cdot v_c, \quad q_c = (1 - \varepsilon)\,[c = y] + \varepsilon / C

    Args:
        features: Inputs of the last layer, one row a sample.
        weights: The last layer's weights, one row a class.
        targets: Index of the true class.
        weight: One weight for each class in the loss; the mean divides by the weights of the true classes.
        ignore_index: Target value whose elements cost nothing and are excluded from the mean.
        label_smoothing: Share of the probability that is spread evenly over all classes, the true one too.

    Use when:
        There are so many classes that features and layer are much smaller to send than the logits.

    Pitfalls:
        `weights` is the layer and is differentiated too; `weight` weighs classes in the loss. The layer has
        no bias: append a feature that is always 1.

    Sources:
        - Wijmans et al. (2024), Cut Your Losses in Large-Vocabulary Language Models,
          https://arxiv.org/abs/2411.09009
    """
    # NaN features of an ignored sample would reach the gradient of the layer, which sums over all samples
    counted = torch.where((targets == ignore_index)[:, None], 0.0, features)
    returned = cross_entropy(
        counted @ weights.T,
        targets,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )
    return RowLoss(*returned)


@loss(
    title="Logit-adjusted cross entropy",
    tasks=("classification",),
    aliases=("balanced_softmax",),
    keywords=(
        "class imbalance",
        "long tail",
        "rare classes",
        "imbalanced multiclass classification",
    ),
    requires=(SizeRange("C", least=2),),
    range=(0, None),
)
def logit_adjusted_cross_entropy(
    logits: Annotated[Tensor, Prediction("N C")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    class_priors: Annotated[tuple[float, ...], Values("C", Above(0))],
    tau: float = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy that asks rare classes for a larger margin: long-tailed class frequencies.

    Formula:
        -\log \frac{e^{z_y + \tau \log \pi_y}}{\sum_c e^{z_c + \tau \log \pi_c}}

    Args:
        logits: Unnormalised log-probabilities; the second axis runs over the classes.
        targets: Index of the true class.
        class_priors: Frequency of each class in the training data, as counts or shares: scaled to sum to 1.
        tau: Strength of the adjustment; 1 is the balanced softmax, 0 plain cross entropy.

    Use when:
        A few classes have most of the training samples, and all classes matter alike at test time.

    Pitfalls:
        The adjustment belongs to training: predict with the logits as they are. Class weights on top of it
        correct for the imbalance twice.

    Sources:
        - Menon et al. (2021), Long-Tail Learning via Logit Adjustment, https://arxiv.org/abs/2007.07314
        - Ren et al. (2020), Balanced Meta-Softmax for Long-Tailed Visual Recognition,
          https://arxiv.org/abs/2007.10740
    """
    # softmax does not see a common factor of the priors: the largest keeps the sums small
    largest = max(class_priors)
    offsets = constant([tau * (log(prior) - log(largest)) for prior in class_priors], logits)
    return surprise(logits + offsets, targets)


def _from_probabilities(
    logits: Tensor, probabilities: Tensor, weights: Tensor | None, label_smoothing: float
) -> ClassLoss:
    """Return the cross entropy to a distribution over the classes."""
    axis = min(1, logits.dim() - 1)
    classes = logits.shape[axis]
    share = (1 - label_smoothing) * probabilities + label_smoothing / classes
    if weights is not None:
        share = share * weights.reshape(-1, *[1] * (logits.dim() - axis - 1))
    loss = soft_surprise(logits, share, axis)
    return ClassLoss(loss, torch.ones_like(loss))


def _share(targets: Tensor, weights: Tensor, ignore_index: int) -> Tensor:
    """Return the weight of each target's class, 0 where it is ignored; one weight for all may be given."""
    counted = targets != ignore_index
    # with an extra axis, because a single index would be read on the host
    of_class = weights[torch.where(counted, targets, 0)[..., None]][..., 0] if weights.dim() else weights
    return torch.where(counted, of_class, 0.0)
