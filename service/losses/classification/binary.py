"""Losses of one logit for each yes-or-no question: binary and multilabel targets, masks, dense heads."""

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.constants import constant
from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Between
from service.catalogue.spec import Form, Params, Prediction, Target, Unreduced, Values, When
from service.losses.surprise import binary_surprise


def _is_list(params: Params) -> bool:
    return isinstance(params["pos_weight"], tuple)


LISTED = When("pos_weight is a list", _is_list)
PLAIN = When("pos_weight is null or a number", lambda params: not _is_list(params))


@loss(
    title="Binary cross entropy with logits",
    tasks=("classification", "segmentation"),
    aliases=("bce_with_logits", "sigmoid_cross_entropy", "sigmoid_bce"),
    keywords=(
        "binary classification",
        "logistic regression",
        "log loss",
        "multi-label classification",
        "click-through rate",
        "CTR",
        "churn",
        "conversion",
        "link prediction",
    ),
    range=(0, None),
)
def binary_cross_entropy_with_logits(
    logits: Annotated[Tensor, Prediction([Form("...", when=PLAIN), Form("... C", when=LISTED)])],
    targets: Annotated[
        Tensor, Target([Form("...", Between(), when=PLAIN), Form("... C", Between(), when=LISTED)])
    ],
    *,
    pos_weight: Annotated[float, Ge(0)] | Annotated[tuple[float, ...], Values("C", AtLeast(0))] | None = None,
    label_smoothing: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> Annotated[Tensor, Unreduced([Form("... C"), Form("...")])]:
    r"""Negative log-likelihood of yes-or-no targets, from logits: binary, multilabel and mask targets.

    Formula:
        (1 - t) \log(1 + e^{z}) + w\, t \log(1 + e^{-z}),
        \quad t = (1 - \varepsilon)\, y + \tfrac{\varepsilon}{2}

    Args:
        logits: Log-odds of the positive class.
        targets: 1 for the positive class, 0 for the negative one, or a probability between.
        pos_weight: Weight of the positive term: one for all, or one for each entry of the last axis.
        label_smoothing: Share of the probability that is spread evenly over both answers: 1 becomes
            1 - \varepsilon / 2, and 0 becomes \varepsilon / 2.

    Use when:
        Each output answers its own question: two classes, several labels at once, a mask.

    Pitfalls:
        Takes logits: probabilities go in without an error. `pos_weight` does not change what the mean divides
        by, so it also scales the step. A list of it runs along the last axis, not the second. With
        `label_smoothing` a perfect fit does not cost 0; code that moves 0 to \varepsilon smooths twice as much.

    Sources:
        - Good (1952), Rational Decisions, https://doi.org/10.1111/j.2517-6161.1952.tb00104.x
        - Szegedy et al. (2016), Rethinking the Inception Architecture for Computer Vision,
          https://arxiv.org/abs/1512.00567
    """
    yes, no = targets, 1 - targets
    if label_smoothing:
        # neither is one minus the other, which would lose the digits of what is unlikely
        yes, no = ((1 - label_smoothing) * answer + label_smoothing / 2 for answer in (yes, no))
    return binary_surprise(logits, yes if pos_weight is None else yes * constant(pos_weight, logits), no)
