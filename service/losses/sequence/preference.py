"""Preference tuning: of two answers the chosen one must become more probable than the rejected one."""

from math import log
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import LogProbabilities
from service.catalogue.spec import Bounds, Condition, Diagnostic, Prediction, Target, Unreduced
from service.losses.digits import sloped
from service.losses.surprise import binary_surprise, softplus

SMOOTHED = ("sigmoid", "robust", "exo_pair")
"""The types of loss in which a preference may be the wrong way round."""


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
        "IPO",
        "SLiC",
        "cDPO",
        "robust DPO",
        "EXO",
        "NCA",
        "APO",
        "SPPO",
        "DiscoPOP",
    ),
    requires=(
        Condition(
            "/params/label_smoothing",
            "0 for this loss_type, where it has no effect: it is for sigmoid, robust and exo_pair",
            lambda facts: f"{facts.params['label_smoothing']} with {facts.params['loss_type']}",
            lambda facts: facts.params["loss_type"] in SMOOTHED or facts.params["label_smoothing"] == 0,
        ),
        Condition(
            "/params/label_smoothing",
            "a number above 0 for exo_pair, such as 0.001",
            lambda facts: facts.params["label_smoothing"],
            lambda facts: facts.params["loss_type"] != "exo_pair" or facts.params["label_smoothing"] > 0,
        ),
        Condition(
            "/params/discopop_tau",
            "0.05 for this loss_type, where it has no effect: it is for discopop",
            lambda facts: f"{facts.params['discopop_tau']} with {facts.params['loss_type']}",
            lambda facts: facts.params["loss_type"] == "discopop" or facts.params["discopop_tau"] == 0.05,
        ),
    ),
    work="3 chosen_log_probabilities",
    range=lambda params: _bounds(params["loss_type"], params["label_smoothing"]),
)
def dpo(
    chosen_log_probabilities: Annotated[Tensor, Prediction("N", LogProbabilities())],
    rejected_log_probabilities: Annotated[Tensor, Prediction("N", LogProbabilities())],
    reference_chosen_log_probabilities: Annotated[Tensor, Target("N", LogProbabilities())],
    reference_rejected_log_probabilities: Annotated[Tensor, Target("N", LogProbabilities())],
    *,
    beta: Annotated[float, Gt(0)] = 0.1,
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0,
    loss_type: Literal[
        "sigmoid",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "apo_zero",
        "apo_down",
        "sppo_hard",
        "discopop",
    ] = "sigmoid",
    discopop_tau: Annotated[float, Gt(0)] = 0.05,
) -> PreferenceLoss:
    r"""Cost of preferring a rejected answer to a chosen one, against a reference model: DPO and its variants.

    Formula:
        \begin{aligned}
        c &= \beta \log \tfrac{\pi(y_c)}{\pi_{\mathrm{ref}}(y_c)}, \quad
        r = \beta \log \tfrac{\pi(y_r)}{\pi_{\mathrm{ref}}(y_r)}, \quad x = c - r \\
        \text{sigmoid} &: -(1 - \varepsilon) \log \sigma(x) - \varepsilon \log \sigma(-x) \\
        \text{hinge} &: \max(0, 1 - x) \\
        \text{ipo} &: \left( \tfrac{x}{\beta} - \tfrac{1}{2 \beta} \right)^2 \\
        \text{robust} &: \tfrac{-(1 - \varepsilon) \log \sigma(x) + \varepsilon \log \sigma(-x)}{1 - 2 \varepsilon} \\
        \text{exo\_pair} &: \sigma(x) \log \tfrac{\sigma(x)}{1 - \varepsilon}
        + \sigma(-x) \log \tfrac{\sigma(-x)}{\varepsilon} \\
        \text{nca\_pair} &: -\log \sigma(c) - \tfrac{1}{2} \log \sigma(-c) - \tfrac{1}{2} \log \sigma(-r) \\
        \text{apo\_zero} &: 1 - \sigma(c) + \sigma(r) \\
        \text{apo\_down} &: \sigma(c) + 1 - \sigma(x) \\
        \text{sppo\_hard} &: \left( \tfrac{c}{\beta} - \tfrac{1}{2 \beta} \right)^2
        + \left( \tfrac{r}{\beta} + \tfrac{1}{2 \beta} \right)^2 \\
        \text{discopop} &: -(1 - m) \log \sigma(x) + m\, e^{-x}, \quad m = \sigma(x / \tau)
        \end{aligned}

    Args:
        chosen_log_probabilities: Log-probability of each chosen answer, summed over its tokens.
        rejected_log_probabilities: Log-probability of each rejected answer, summed over its tokens.
        reference_chosen_log_probabilities: Log-probability of each chosen answer under the reference model.
        reference_rejected_log_probabilities: Log-probability of each rejected answer under the reference
            model.
        beta: How strongly the policy is held to the reference; scales the rewards.
        label_smoothing: Probability that a preference is the wrong way round; for `sigmoid` and `robust`, and for
            `exo_pair`, which needs one above 0. Refused elsewhere.
        loss_type: `sigmoid` for DPO, with `label_smoothing` cDPO; `hinge` for SLiC; the others bear the names of
            their papers.
        discopop_tau: Width, in rewards, over which `discopop` passes from one part to the other; refused elsewhere.

    Use when:
        A language model is tuned on pairs of answers without a reward model.

    Pitfalls:
        Wants sums, not means, of the token log-probabilities, the prompt left out; only `ipo` is commonly fed
        length-normalised ones. The reference is constant. The loss may fall while both answers become less
        probable: watch `chosen_rewards`. `beta` does not mean the same in all types: in `ipo` and `sppo_hard`
        it sets the margin that is aimed at, and values have the square of its inverse. `robust` has no lower
        bound with `label_smoothing`. `apo_zero` makes the chosen answer more probable, `apo_down` less: the latter
        is for a model that is better than its data.

    Sources:
        - Rafailov et al. (2023), Direct Preference Optimization, https://arxiv.org/abs/2305.18290
        - Mitchell (2023), A Note on DPO with Noisy Preferences, https://ericmitchell.ai/cdpo.pdf
        - Zhao et al. (2023), SLiC-HF: Sequence Likelihood Calibration, https://arxiv.org/abs/2305.10425
        - Azar et al. (2023), A General Theoretical Paradigm to Understand Learning from Human Preferences,
          https://arxiv.org/abs/2310.12036
        - Chowdhury et al. (2024), Provably Robust DPO, https://arxiv.org/abs/2403.00409
        - Ji et al. (2024), Towards Efficient Exact Optimization of Language Model Alignment, equation 16,
          https://arxiv.org/abs/2402.00856
        - Chen et al. (2024), Noise Contrastive Alignment of Language Models with Explicit Rewards,
          https://arxiv.org/abs/2402.05369
        - D'Oosterlinck et al. (2024), Anchored Preference Optimization, equations 7 and 8,
          https://arxiv.org/abs/2408.06266
        - Wu et al. (2024), Self-Play Preference Optimization for Language Model Alignment,
          https://arxiv.org/abs/2405.00675
        - Lu et al. (2024), Discovering Preference Optimization Algorithms with and for Large Language Models,
          equation 5, https://arxiv.org/abs/2406.08414
        - Hugging Face, TRL, DPOTrainer, https://huggingface.co/docs/trl/dpo_trainer
    """
    chosen = chosen_log_probabilities - reference_chosen_log_probabilities
    rejected = rejected_log_probabilities - reference_rejected_log_probabilities
    margin = chosen - rejected
    lead, chosen_rewards, rejected_rewards = beta * margin, beta * chosen, beta * rejected
    match loss_type:
        case "sigmoid":
            loss = _shared(lead, 1 - label_smoothing, label_smoothing)
        case "hinge":
            loss = (1 - lead).relu()
        case "ipo":
            loss = (margin - 1 / (2 * beta)).square()
        case "robust":
            loss = _robust(lead, label_smoothing)
        case "exo_pair":
            loss = _divergence(lead, label_smoothing)
        case "nca_pair":
            loss = _shared(chosen_rewards, 1, 0.5) + softplus(rejected_rewards) / 2
        case "apo_zero":
            loss = torch.sigmoid(-chosen_rewards) + torch.sigmoid(rejected_rewards)
        case "apo_down":
            loss = torch.sigmoid(chosen_rewards) + torch.sigmoid(-lead)
        case "sppo_hard":
            loss = (chosen - 1 / (2 * beta)).square() + (rejected + 1 / (2 * beta)).square()
        case "discopop":
            loss = _discovered(lead, discopop_tau)
    return PreferenceLoss(loss, chosen_rewards, rejected_rewards)


def _bounds(loss_type: str, label_smoothing: float) -> Bounds:
    """Return the least and the largest loss of a type."""
    if loss_type == "robust" and label_smoothing > 0:
        return None, None
    return 0, 2 if loss_type.startswith("apo") else None


def _shared(lead: Tensor, yes: float, no: float) -> Tensor:
    """Return -yes log sigmoid(x) - no log sigmoid(-x)."""
    even = torch.ones_like(lead)
    return binary_surprise(lead, yes * even, no * even)


def _robust(lead: Tensor, flipped: float) -> Tensor:
    """Return the loss whose mean over flips of that probability is the loss without them.

    The two logarithms differ by x: their difference is linear, with the share of flips as its slope.
    """
    logistic = softplus(-lead)
    # no flips leave nothing of an infinite lead, and not 0 * infinity
    return logistic - flipped / (1 - 2 * flipped) * lead if flipped else logistic


def _divergence(lead: Tensor, flipped: float) -> Tensor:
    """Return the divergence of the policy's preference, sigmoid(x), from one that holds but for flips.

    It is how far softplus at the wanted lead is above its tangent at x, seen from the side where the slope of the
    tangent is small; in float64, as the excess is a small difference.
    """
    # beyond it sigmoid(-x) is 0, also times an infinite lead
    x, wanted = lead.detach().double().clamp(-1000, 1000), log((1 - flipped) / flipped)
    side = torch.ones_like(x).copysign(x)
    size, target = side * x, side * wanted
    share, beyond = torch.sigmoid(-size), size - target
    near = beyond.abs() < 1
    close = torch.where(near, beyond, 0.0)
    excess = torch.where(
        near,
        torch.log1p(share * close.expm1()) - share * close,
        softplus(-target) - softplus(-size) - share * beyond,
    )
    return sloped(
        excess.clamp(min=0).to(lead),
        (x,),
        (lead, lambda x: torch.sigmoid(x) * torch.sigmoid(-x) * (x - wanted)),
    )


def _discovered(lead: Tensor, tau: float) -> Tensor:
    """Return the logistic loss where the lead is negative, and the exponential where it is positive."""
    # of an infinite lead nothing is left, and not 0 * infinity
    known = lead.detach().clamp(min=-torch.finfo(lead.dtype).max / 4 * min(tau, 1))
    logistic, blend = softplus(-known), torch.sigmoid(known / tau)
    # the product as one exponential: at a lead far below 0 its factors are infinite and 0
    exponential = torch.exp(F.logsigmoid(known / tau) - known)
    return sloped(
        softplus(-lead.detach()) * torch.sigmoid(-known / tau) + exponential,
        (known, logistic, blend, exponential),
        (lead, lambda known, first, blend, second: _slope_of_discovered(known, tau, first, blend, second)),
    )


def _slope_of_discovered(
    lead: Tensor, tau: float, logistic: Tensor, blend: Tensor, exponential: Tensor
) -> Tensor:
    other = torch.sigmoid(-lead / tau)
    return (exponential - logistic * blend) * other / tau - exponential - torch.sigmoid(-lead) * other
