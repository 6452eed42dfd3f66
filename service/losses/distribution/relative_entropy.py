"""Losses that compare distributions by the logarithm of their ratio."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import AtLeast, Facts, LogProbabilities, Simplex
from service.catalogue.spec import Form, Prediction, Target, Unreduced, given
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
        The first input is log-probabilities: take `log_softmax` of logits, not `log` of what does not sum to
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


@loss(title="Generalized KL divergence", tasks=("distribution",), aliases=("i_divergence", "convex_kl"))
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
    divergence = weighted(targets, log(targets) - log_probabilities)
    return (divergence + log_probabilities.exp() - targets).sum(-1)


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


@loss(title="Jensen-Shannon divergence", tasks=("distribution",), aliases=("jensen_shannon",))
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
    log_mixture = log((probabilities + targets) / 2)
    of_predictions = weighted(probabilities, log(probabilities) - log_mixture)
    of_targets = weighted(targets, log(targets) - log_mixture)
    return (of_predictions + of_targets).sum(-1) / 2


@loss(title="KL divergence of Gaussians", tasks=("distribution",))
def gaussian_kl(
    means: Annotated[Tensor, Prediction("... D")],
    log_variances: Annotated[Tensor, Prediction("... D")],
    target_means: Annotated[Tensor, Target("... D")],
    target_log_variances: Annotated[Tensor, Target("... D")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""KL divergence from one Gaussian with a diagonal covariance to another.

    Formula:
        \tfrac{1}{2} \sum_d \ln \frac{v_d}{\hat v_d} + \frac{\hat v_d + (\hat\mu_d - \mu_d)^2}{v_d} - 1

    Args:
        means: Means of the first Gaussian, the predicted one.
        log_variances: Logarithms of its variances.
        target_means: Means of the second Gaussian, such as a prior.
        target_log_variances: Logarithms of its variances.

    Use when:
        Posterior and prior are both learned: hierarchical variational models, latent dynamics.

    Pitfalls:
        Takes log-variances; a log-standard-deviation is half of one. The order matters: the expectation is
        under the first Gaussian, KL(predictions || targets). A tiny target variance makes it explode.

    Sources:
        - Kingma & Welling (2014), Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
    """
    log_ratio, gap = log_variances - target_log_variances, means - target_means
    # equal means cost nothing, even where the precision overflows and 0 times infinity would be NaN
    precision = torch.where(gap == 0, 0.0, -target_log_variances).exp()
    # expm1 keeps the digits of nearly equal variances
    return (log_ratio.expm1() - log_ratio + gap.square() * precision).sum(-1) / 2
