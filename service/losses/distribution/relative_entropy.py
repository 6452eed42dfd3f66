"""Losses that compare distributions by the logarithm of their ratio."""

from dataclasses import dataclass
from math import log as ln
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Facts, LogProbabilities, Simplex
from service.catalogue.spec import Form, Prediction, Target, Unreduced, given
from service.losses.digits import bounded, excess, growth, sloped
from service.losses.distribution.logarithms import log, weighted


@dataclass(frozen=True)
class PositiveSimplex(Simplex):
    """Probability distributions along the last axis that give no outcome the probability 0."""

    def describe(self) -> str:
        return f"{super().describe()}, each above 0"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return super().admits(values, facts) & (values > 0)

    def found(self, values: Tensor, index: tuple[int, ...]) -> str:
        return "0" if values[index].item() == 0 else super().found(values, index)


@loss(
    title="Kullback-Leibler divergence",
    tasks=("distribution", "nlp"),
    aliases=("kullback_leibler", "kl_divergence"),
)
def kl_div(
    log_probabilities: Annotated[Tensor, Prediction("... C", LogProbabilities())],
    targets: Annotated[
        Tensor,
        Target(
            [
                Form("... C", Simplex(), given(log_target=False)),
                Form("... C", LogProbabilities(), given(log_target=True)),
            ]
        ),
    ],
    *,
    log_target: bool = False,
    pointwise: bool = False,
) -> Annotated[Tensor, Unreduced([Form("... C", when=given(pointwise=True)), Form("...")])]:
    r"""Information lost when a predicted distribution stands in for the known one.

    Formula:
        \sum_c y_c\, (\ln y_c - \ln \hat y_c)

    Args:
        log_probabilities: Logarithms of the predicted probabilities, along the last axis.
        targets: Probabilities along the last axis, or their logarithms if `log_target`.
        log_target: Whether the targets are log-probabilities too.
        pointwise: Leave the terms unsummed, in the shape of the inputs.

    Use when:
        The whole target distribution is known: soft labels, a teacher, a posterior.

    Pitfalls:
        The first input is log-probabilities: take `log_softmax` of logits, not `log` of values that do not sum to
        1. The order matters: this is KL(targets || predictions), which punishes predictions that miss mass.
        With `pointwise` the mean divides by the classes too, so it is not the mean of the divergences.

    Sources:
        - Kullback & Leibler (1951), On Information and Sufficiency, https://doi.org/10.1214/aoms/1177729694
    """
    if log_target:
        terms = weighted(targets.exp(), targets - log_probabilities)
    else:
        terms = weighted(targets, log(targets) - log_probabilities)
    return terms if pointwise else terms.sum(-1)


@loss(title="KL divergence of clamped probabilities", tasks=("distribution",), aliases=("kld",))
def kl_div_probabilities(
    probabilities: Annotated[Tensor, Prediction("... C", Simplex())],
    targets: Annotated[Tensor, Target("... C", Simplex())],
    *,
    eps: Annotated[float, Gt(0), Lt(1)] = 1e-7,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""KL divergence that takes probabilities and keeps both sides away from zero.

    Formula:
        \sum_c y_c \ln \frac{y_c}{\hat y_c}, \quad y, \hat y \text{ clamped to } [\varepsilon, 1]

    Args:
        probabilities: Predicted probabilities along the last axis.
        targets: Known probabilities along the last axis.
        eps: Least probability that either side is taken to have.

    Use when:
        The model ends in a softmax and gives no logarithms, or to reproduce what Keras computes.

    Pitfalls:
        Clamped rows no longer sum to 1, so the loss can be slightly negative. Below `eps` a
        probability has no gradient, so a model cannot recover from there: prefer `kl_div`.

    Sources:
        - Kullback & Leibler (1951), On Information and Sufficiency, https://doi.org/10.1214/aoms/1177729694
    """
    predicted, known = probabilities.clamp(eps, 1), targets.clamp(eps, 1)
    return (known * (known.log() - predicted.log())).sum(-1)


@loss(
    title="Generalized KL divergence",
    tasks=("distribution",),
    aliases=("i_divergence", "convex_kl"),
    work="log_probabilities",
    range=(0, None),
)
def generalized_kl(
    log_probabilities: Annotated[Tensor, Prediction("... C")],
    targets: Annotated[Tensor, Target("... C", AtLeast(0))],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""KL divergence of non-negative measures that need not sum to 1, such as counts or spectra.

    Formula:
        \sum_c y_c\, (\ln y_c - \ln \hat y_c) + \hat y_c - y_c

    Args:
        log_probabilities: Logarithms of the predicted masses, along the last axis; any numbers.
        targets: Known masses along the last axis, at least 0.

    Use when:
        The total mass is to be matched too: non-negative matrix factorisation, intensities, histograms.

    Pitfalls:
        Equals `kl_div` only where both sides sum to 1. Grows with the exponential of a prediction that is too
        high, so bound the predictions or clip the gradient.

    Sources:
        - Csiszar (1975), I-Divergence Geometry of Probability Distributions and Minimization Problems,
          https://doi.org/10.1214/aop/1176996454
    """
    zero = targets == 0
    mass = torch.where(zero, 1.0, targets.detach())
    gap = log_probabilities.detach() - mass.log()
    terms = sloped(
        torch.where(zero, log_probabilities.exp().detach(), excess(gap, mass)),
        (zero, mass, gap),
        (log_probabilities, lambda zero, mass, gap: growth(gap, mass) + zero),
        (targets, lambda zero, mass, gap: torch.where(zero, -1.0, -gap)),
    )
    return terms.sum(-1)


@loss(title="Reverse KL divergence", tasks=("distribution",))
def reverse_kl(
    log_probabilities: Annotated[Tensor, Prediction("... C", LogProbabilities())],
    targets: Annotated[
        Tensor,
        Target(
            [
                Form("... C", PositiveSimplex(), given(log_target=False)),
                Form("... C", LogProbabilities(), given(log_target=True)),
            ]
        ),
    ],
    *,
    log_target: bool = False,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Mode-seeking divergence: the prediction may drop modes, but not put mass where there is none.

    Formula:
        \sum_c \hat y_c\, (\ln \hat y_c - \ln y_c)

    Args:
        log_probabilities: Logarithms of the predicted probabilities, along the last axis.
        targets: Probabilities above 0 along the last axis, or their logarithms if `log_target`.
        log_target: Whether the targets are log-probabilities too.

    Use when:
        A small student cannot cover a large teacher, and should do a few of its modes well.

    Pitfalls:
        Not `kl_div` with its inputs swapped: the gradient also flows through the weights, which are the
        predictions. It can settle on one mode and stay there.

    Sources:
        - Gu et al. (2023), MiniLLM: Knowledge Distillation of Large Language Models,
          https://arxiv.org/abs/2306.08543
    """
    log_targets = targets if log_target else targets.log()
    return weighted(log_probabilities.exp(), log_probabilities - log_targets).sum(-1)


@loss(
    title="Jensen-Shannon divergence", tasks=("distribution",), aliases=("jensen_shannon",), range=(0, ln(2))
)
def js_div(
    probabilities: Annotated[Tensor, Prediction("... C", Simplex())],
    targets: Annotated[Tensor, Target("... C", Simplex())],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Symmetric divergence from 0 to ln 2 that stays finite for distributions without overlap.

    Formula:
        \tfrac{1}{2} \sum_c \hat y_c \ln \frac{\hat y_c}{m_c} + \tfrac{1}{2} \sum_c y_c \ln \frac{y_c}{m_c},
        \quad m = \frac{\hat y + y}{2}

    Args:
        probabilities: Predicted probabilities along the last axis.
        targets: Known probabilities along the last axis.

    Use when:
        Neither side is the reference, or zeros on one side would make a KL divergence infinite.

    Pitfalls:
        This is the divergence: the Jensen-Shannon distance, which scipy returns, is its square root. Where
        supports hardly overlap it is nearly flat at ln 2, and says little about which way to move.

    Sources:
        - Lin (1991), Divergence Measures Based on the Shannon Entropy, https://doi.org/10.1109/18.61115
    """
    predicted, known = probabilities.detach(), targets.detach()
    gap, least = (predicted - known).abs(), torch.minimum(predicted, known)
    eps = torch.finfo(gap.dtype)
    share = gap / (predicted + known).clamp(min=eps.tiny)
    # the logarithms of both ratios to the mixture are of first order in the gap and cancel to second order:
    # the larger side's excess takes the one of the larger, and what both share the sum of the two
    shared = least * torch.log1p(-share.square().clamp(max=1 - eps.eps))
    terms = sloped(
        (gap * torch.log1p(share) + shared) / 2,
        (predicted, known),
        (probabilities, _slope_to_mixture),
        (targets, lambda predicted, known: _slope_to_mixture(known, predicted)),
    )
    return bounded(terms.sum(-1), 0, ln(2))


def _slope_to_mixture(one: Tensor, other: Tensor) -> Tensor:
    """Return half the logarithm of the ratio of one side to the mixture, and 0 where it is 0."""
    gap = one - other
    more, less = gap.clamp(min=0) / (one + other), -gap.clamp(max=0) / (2 * one)
    return (torch.log1p(more) - torch.log1p(less)).nan_to_num(0.0, neginf=0.0) / 2
