"""Preference tuning: of two answers the chosen one must become more probable than the rejected one."""

from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import LogProbabilities
from service.catalogue.spec import Diagnostic, Prediction, Target, Unreduced
from service.losses.surprise import binary_surprise


class PreferenceLoss(NamedTuple):
    """A loss per pair, and the implicit rewards of its two answers."""

    loss: Annotated[Tensor, Unreduced("N")]
    chosen_rewards: Annotated[Tensor, Diagnostic("N")]
    rejected_rewards: Annotated[Tensor, Diagnostic("N")]


@loss(
    title="Direct preference optimization",
    tasks=("reinforcement", "nlp"),
    aliases=("direct_preference_optimization",),
    keywords=(
        "RLHF",
        "preference optimization",
        "alignment",
        "human feedback",
        "LLM",
        "fine-tuning",
        "preferences",
        "reward model",
    ),
    range=(0, None),
)
def dpo(
    chosen_log_probabilities: Annotated[Tensor, Prediction("N", LogProbabilities())],
    rejected_log_probabilities: Annotated[Tensor, Prediction("N", LogProbabilities())],
    reference_chosen_log_probabilities: Annotated[Tensor, Target("N", LogProbabilities())],
    reference_rejected_log_probabilities: Annotated[Tensor, Target("N", LogProbabilities())],
    *,
    beta: Annotated[float, Gt(0)] = 0.1,
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0,
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid",
) -> PreferenceLoss:
    r"""Cost of preferring a rejected answer to a chosen one, against a reference model: DPO, SLiC, IPO.

    Formula:
        -(1 - \varepsilon) \log \sigma(\beta h) - \varepsilon \log \sigma(-\beta h), \quad
        \max(0, 1 - \beta h) \quad \text{or} \quad \left( h - \tfrac{1}{2 \beta} \right)^2,
        \quad h = \log \frac{\pi(y_c)}{\pi_{\mathrm{ref}}(y_c)}
        - \log \frac{\pi(y_r)}{\pi_{\mathrm{ref}}(y_r)}

    Args:
        chosen_log_probabilities: Log-probability of each chosen answer, summed over its tokens.
        rejected_log_probabilities: Log-probability of each rejected answer, summed over its tokens.
        reference_chosen_log_probabilities: Log-probability of each chosen answer under the reference model.
        reference_rejected_log_probabilities: Log-probability of each rejected answer under the reference
            model.
        beta: How strongly the policy is held to the reference; scales the rewards.
        label_smoothing: Probability that a preference is the wrong way round; for `sigmoid`.
        loss_type: `sigmoid` for DPO, `hinge` for SLiC, `ipo` for IPO.

    Use when:
        A language model is tuned on pairs of answers without a reward model.

    Pitfalls:
        Wants sums, not means, of the token log-probabilities, the prompt left out; only `ipo` is commonly fed
        length-normalised ones. The reference is constant. The loss may fall while both answers become less
        probable: watch `chosen_rewards`.

    Sources:
        - Rafailov et al. (2023), Direct Preference Optimization, https://arxiv.org/abs/2305.18290
        - Mitchell (2023), A Note on DPO with Noisy Preferences, https://ericmitchell.ai/cdpo.pdf
        - Zhao et al. (2023), SLiC-HF: Sequence Likelihood Calibration, https://arxiv.org/abs/2305.10425
        - Azar et al. (2023), A General Theoretical Paradigm to Understand Learning from Human Preferences,
          https://arxiv.org/abs/2310.12036
    """
    chosen = chosen_log_probabilities - reference_chosen_log_probabilities
    rejected = rejected_log_probabilities - reference_rejected_log_probabilities
    margin = chosen - rejected
    if loss_type == "ipo":
        loss = (margin - 1 / (2 * beta)).square()
    elif loss_type == "hinge":
        loss = (1 - beta * margin).relu()
    else:
        even = torch.ones_like(margin)
        loss = binary_surprise(beta * margin, (1 - label_smoothing) * even, label_smoothing * even)
    return PreferenceLoss(loss, beta * chosen, beta * rejected)
