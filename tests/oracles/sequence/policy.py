"""Policy losses action by action, straight from the papers' formulas."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


def valid_places(like: Array, mask: Array | None) -> list[tuple[int, ...]]:
    return [place for place in np.ndindex(*like.shape) if mask is None or mask[place]]


@oracles.of(
    "policy_gradient",
    draws=[({"...": ()}, {}), ({"...": (3, 4)}, {})],
    edges=[
        Edge(
            {
                "log_probabilities": [np.nan, -np.inf, 2.5, -1e4],
                "advantages": [1, np.inf, -2, 1e4],
                "mask": [False, False, True, True],
            },
            gradients={"log_probabilities": [0, 0, 2, -1e4]},
        ),
        Edge({"log_probabilities": [1, 2], "advantages": [3, 4], "mask": [False, False]}),
    ],
)
def policy_gradient(log_probabilities: Array, advantages: Array, mask: Array | None) -> dict[str, Array]:
    loss, divisor = np.zeros(advantages.shape), np.zeros(advantages.shape)
    for place in valid_places(advantages, mask):
        loss[place], divisor[place] = -(log_probabilities[place] * advantages[place]), 1
    return {"loss": loss, "divisor": divisor}


@oracles.of(
    "ppo_clip",
    grows=True,
    draws=[
        ({"...": ()}, {}),
        ({"...": (3, 5)}, {"clip_epsilon": 0.9}),
        ({"...": (12,)}, {"clip_epsilon": 0.01}),
    ],
    edges=[
        # raised and lowered by a factor of e, for either sign: clipped on one side only
        Edge(
            {
                "log_probabilities": [0, 0, -1, -1, -1, -1],
                "old_log_probabilities": [-1, -1, 0, 0, -1, -1],
                "advantages": [2, -2, 2, -2, 2, -2],
            },
            gradients={"log_probabilities": [0, 2 * math.e, -2 / math.e, 0, -2, 2]},
        ),
        # a ratio beyond any float: exactly clipped, or with nothing to gain
        Edge(
            {
                "log_probabilities": [1e4, 1e4, -1e4, -1e4],
                "old_log_probabilities": [-1e4, -1e4, 1e4, 1e4],
                "advantages": [1, 0, -1, 1],
            },
            gradients={"log_probabilities": [0, 0, 0, 0]},
        ),
        Edge(
            {
                "log_probabilities": [np.nan, 0.1],
                "old_log_probabilities": [np.inf, 0],
                "advantages": [np.nan, 1],
                "mask": [False, True],
            },
            gradients={"log_probabilities": [0, -math.exp(0.1)]},
        ),
        # nothing counts
        Edge(
            {
                "log_probabilities": [0.1],
                "old_log_probabilities": [0],
                "advantages": [1],
                "mask": [False],
            },
            gradients={"log_probabilities": [0]},
        ),
    ],
)
def ppo_clip(
    log_probabilities: Array,
    old_log_probabilities: Array,
    advantages: Array,
    mask: Array | None,
    *,
    clip_epsilon: float,
) -> dict[str, Any]:
    loss, divisor = np.zeros(advantages.shape), np.zeros(advantages.shape)
    clipped: list[float] = []
    divergence: list[float] = []
    for place in valid_places(advantages, mask):
        with np.errstate(over="ignore"):
            ratio = np.exp(log_probabilities[place] - old_log_probabilities[place])
        gain = advantages[place]
        bounded = min(max(ratio, 1 - clip_epsilon), 1 + clip_epsilon)
        loss[place], divisor[place] = -min(ratio * gain, bounded * gain) if gain else 0, 1
        clipped.append(abs(ratio - 1) > clip_epsilon)
        divergence.append(ratio - 1 - (log_probabilities[place] - old_log_probabilities[place]))
    return {
        "loss": loss,
        "divisor": divisor,
        "clip_fraction": np.mean(clipped) if clipped else 0,
        "approx_kl": np.mean(divergence) if divergence else 0,
    }
