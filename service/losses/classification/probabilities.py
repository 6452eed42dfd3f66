"""Losses that take probabilities, for models whose logits are not available."""

from math import log1p
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Between, ClassIndex, Simplex
from service.catalogue.spec import Form, Prediction, Target, Unreduced
from service.losses.classification.class_axis import at_target, one_hot
from service.losses.classification.slopes import zeros_with_slope


@loss(title="Categorical cross entropy", tasks=("classification",), work="probabilities", range=(0, None))
def categorical_cross_entropy(
    probabilities: Annotated[Tensor, Prediction("N C ...", Simplex(axis=1))],
    targets: Annotated[Tensor, Target([Form("N ...", ClassIndex("C")), Form("N C ...", Simplex(axis=1))])],
    *,
    eps: Annotated[float, Gt(0), Lt(0.5)] = 1e-7,
) -> Annotated[Tensor, Unreduced("N ...")]:
    r"""Negative logarithm of the probability of the true class, from probabilities.

    Formula:
        -\sum_c t_c \log \min(\max(p_c, \epsilon), 1 - \epsilon)

    Args:
        probabilities: Probability of each class; the second axis runs over the classes.
        targets: Index of the true class, or a probability for each class: distinguished by their shape.
        eps: Distance that the probabilities keep from 0 and 1 inside the logarithm.

    Use when:
        Only probabilities are at hand, from a softmax that is not yours to remove.

    Pitfalls:
        Where a probability is clamped its gradient is 0: a confident mistake teaches nothing. `cross_entropy`
        of the logits has no such hole. Rows are taken as they are, not scaled to sum to 1 as keras does:
        the gradient is that of unconstrained probabilities.

    Sources:
        - Bishop (2006), Pattern Recognition and Machine Learning, section 4.3.4
    """
    # the upper bound by its logarithm: 1 - eps is 1 where eps is below the dtype's
    surprise = (-probabilities.clamp(min=eps).log()).clamp(min=-log1p(-eps))
    if targets.is_floating_point():
        return (targets * surprise).sum(1)
    return at_target(surprise, targets)


@loss(
    title="Binary cross entropy",
    tasks=("classification",),
    aliases=("bce", "log_loss", "binary_crossentropy"),
    keywords=(
        "binary classification",
        "log loss",
        "logistic regression",
    ),
    range=(0, 100),
)
def binary_cross_entropy(
    probabilities: Annotated[Tensor, Prediction("...", Between())],
    targets: Annotated[Tensor, Target("...", Between())],
    *,
    label_smoothing: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-likelihood of yes-or-no targets, from probabilities.

    Formula:
        -t \max(\log p, -100) - (1 - t) \max(\log(1 - p), -100),
        \quad t = (1 - \varepsilon)\, y + \tfrac{\varepsilon}{2}

    Args:
        probabilities: Probability of the positive class.
        targets: 1 for the positive class, 0 for the negative one, or a probability between.
        label_smoothing: Share of the probability that is spread evenly over both answers: 1 becomes
            1 - \varepsilon / 2, and 0 becomes \varepsilon / 2.

    Use when:
        Only probabilities are at hand; from logits use `binary_cross_entropy_with_logits`.

    Pitfalls:
        A probability that rounding has made exactly 0 or 1 on the wrong side costs 100, with a gradient
        of 1e12 that ruins a step; with `label_smoothing` so does one on the right side. Logits in place of
        probabilities are refused.

    Sources:
        - Good (1952), Rational Decisions, https://doi.org/10.1111/j.2517-6161.1952.tb00104.x
        - Szegedy et al. (2016), Rethinking the Inception Architecture for Computer Vision,
          https://arxiv.org/abs/1512.00567
    """
    p = probabilities.detach()
    yes, no = p.log().clamp(min=-100), (-p).log1p().clamp(min=-100)
    value, share = -(targets * yes + (1 - targets) * no), targets
    if label_smoothing:
        value = (1 - label_smoothing) * value - label_smoothing / 2 * (yes + no)
        share = (1 - label_smoothing) * targets + label_smoothing / 2
    slope = (p - share) / (p * (1 - p)).clamp(min=1e-12)
    return value + zeros_with_slope(probabilities, slope)


@loss(
    title="Brier score",
    tasks=("classification",),
    aliases=("brier_score",),
    keywords=(
        "calibration",
        "probability forecasts",
        "proper scoring rule",
        "overconfidence",
    ),
    range=(0, None),
)
def brier(
    probabilities: Annotated[Tensor, Prediction("N C ...", Simplex(axis=1))],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N ...")]:
    r"""Squared distance between the predicted probabilities and the outcome: calibration of forecasts.

    Formula:
        \sum_c (p_c - [c = y])^2

    Args:
        probabilities: Probability of each class; the second axis runs over the classes.
        targets: Index of the true class.

    Use when:
        Probabilities must be honest as well as right, and a bounded score is wanted.

    Pitfalls:
        Runs from 0 to 2. With two classes many libraries report half of it, which is the squared error of the
        probability of the positive class.

    Sources:
        - Brier (1950), Verification of Forecasts Expressed in Terms of Probability,
          https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    return (probabilities - one_hot(targets, probabilities.shape[1]).to(probabilities)).square().sum(1)
