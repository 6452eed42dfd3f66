"""Policy gradients: make the actions taken more or less probable, by how good they were."""

from math import log1p
from typing import Annotated, NamedTuple

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Mask, Real
from service.catalogue.spec import Diagnostic, Divisor, Prediction, Target, Unreduced
from service.losses.exponentials import convexity


class PolicyLoss(NamedTuple):
    """A loss per action, and which of them count."""

    loss: Annotated[Tensor, Unreduced("...")]
    divisor: Annotated[Tensor, Divisor("...")]


@loss(
    title="Policy gradient",
    tasks=("reinforcement",),
    aliases=("reinforce", "vpg"),
    keywords=(
        "REINFORCE",
        "actor critic",
        "advantage",
    ),
)
def policy_gradient(
    log_probabilities: Annotated[Tensor, Prediction("...")],
    advantages: Annotated[Tensor, Target("...", Real(), where="mask")],
    mask: Annotated[Tensor, Target("...", Mask())] | None = None,
) -> PolicyLoss:
    r"""Minus log-probability times advantage: the surrogate whose gradient is REINFORCE's.

    Formula:
        -A \log \pi(a \mid s)

    Args:
        log_probabilities: Log-probabilities, or log-densities, of the actions that were taken.
        advantages: How much better each action was than expected.
        mask: True at the actions that count; all if absent.

    Use when:
        A policy learns from actions it has itself just taken.

    Pitfalls:
        Only the gradient means something: the value does not measure progress. Advantages are constants, and
        nothing is added to them here: subtract a baseline, normalise and reward entropy in the client. After
        one update the actions are no longer the policy's own.

    Sources:
        - Williams (1992), Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
          Learning, https://doi.org/10.1007/BF00992696
    """
    valid = torch.ones_like(advantages, dtype=torch.bool) if mask is None else mask
    gains = torch.where(valid, advantages, 0.0)
    # an impossible action that was neither good nor bad costs nothing, where 0 times infinity is NaN
    counted = valid & ~((gains == 0) & log_probabilities.isinf())
    loss = -torch.where(counted, log_probabilities, 0.0) * gains
    return PolicyLoss(loss, valid.to(loss))


class ClippedPolicyLoss(NamedTuple):
    """A loss per action, which of them count, and how far the policy has moved."""

    loss: Annotated[Tensor, Unreduced("...")]
    divisor: Annotated[Tensor, Divisor("...")]
    clip_fraction: Annotated[Tensor, Diagnostic("")]
    approx_kl: Annotated[Tensor, Diagnostic("")]


@loss(
    title="PPO clip",
    tasks=("reinforcement",),
    aliases=("ppo",),
    keywords=(
        "RLHF",
        "PPO",
        "proximal policy optimization",
        "actor critic",
        "human feedback",
    ),
    work="4 log_probabilities",
)
def ppo_clip(
    log_probabilities: Annotated[Tensor, Prediction("...")],
    old_log_probabilities: Annotated[Tensor, Target("...", Real(), where="mask")],
    advantages: Annotated[Tensor, Target("...", Real(), where="mask")],
    mask: Annotated[Tensor, Target("...", Mask())] | None = None,
    *,
    clip_epsilon: Annotated[float, Gt(0), Lt(1)] = 0.2,
) -> ClippedPolicyLoss:
    r"""Policy gradient that stops where the policy has moved far enough from the one that acted: PPO, RLHF.

    Formula:
        -\min\bigl( q A,\ \operatorname{clip}(q, 1 - \varepsilon, 1 + \varepsilon)\, A \bigr),
        \quad q = \frac{\pi(a \mid s)}{\pi_{\mathrm{old}}(a \mid s)}

    Args:
        log_probabilities: Log-probabilities, or log-densities, of the actions under the policy being trained.
        old_log_probabilities: The same under the policy that took the actions.
        advantages: How much better each action was than expected.
        mask: True at the actions that count; all if absent.
        clip_epsilon: How far the ratio of the two may move in the direction of the advantage.

    Use when:
        Several updates are made from one batch of actions.

    Pitfalls:
        The minimum is pessimistic for both signs of the advantage: clamping the ratio alone is wrong where
        the advantage is negative. The gradient is exactly 0 where the ratio is clipped, so watch
        `clip_fraction` and `approx_kl`. Normalise the advantages in the client.

    Sources:
        - Schulman et al. (2017), Proximal Policy Optimization Algorithms, https://arxiv.org/abs/1707.06347
    """
    valid = torch.ones_like(advantages, dtype=torch.bool) if mask is None else mask
    gains = torch.where(valid, advantages, 0.0)
    moved = torch.where(valid, log_probabilities, 0.0) - torch.where(valid, old_log_probabilities, 0.0)
    # clipped before the exponential, which overflows: the minimum then has one branch for each sign of A
    rise, fall = log1p(clip_epsilon), log1p(-clip_epsilon)
    ratio = torch.where(gains >= 0, moved.clamp(max=rise), moved.clamp(min=fall)).exp()
    count = valid.sum().clamp(min=1).to(ratio)
    return ClippedPolicyLoss(
        loss=-ratio * gains,
        divisor=valid.to(ratio),
        clip_fraction=(moved.expm1().abs() > clip_epsilon).sum() / count,
        approx_kl=convexity(moved).sum() / count,
    )
