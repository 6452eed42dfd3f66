"""Preference losses from the Bradley-Terry probability, in high precision."""

from math import log
from typing import Any

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

TYPES = (
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
)


def _pairs(chosen: list[float], rejected: list[float]) -> dict[str, list[float]]:
    """Return answers to which the reference gives e^-1."""
    return {
        "chosen_log_probabilities": chosen,
        "rejected_log_probabilities": rejected,
        "reference_chosen_log_probabilities": [-1] * len(chosen),
        "reference_rejected_log_probabilities": [-1] * len(chosen),
    }


def _slopes(chosen: float, rejected: float) -> dict[str, list[float]]:
    return {"chosen_log_probabilities": [chosen], "rejected_log_probabilities": [rejected]}


@oracles.of(
    "dpo",
    tolerance=1e-12,
    draws=[
        ({"N": 5}, {"label_smoothing": 0.3, "beta": 0.7}),
        ({"N": 5}, {"loss_type": "hinge", "beta": 2.0}),
        ({"N": 5}, {"loss_type": "ipo", "beta": 0.4}),
        *(({"N": 5}, {"loss_type": name, "beta": 0.7}) for name in TYPES if name != "exo_pair"),
        *(
            ({"N": 5}, {"loss_type": name, "beta": 0.7, "label_smoothing": smoothing})
            for name in ("robust", "exo_pair")
            for smoothing in (1e-3, 0.2, 0.499)
        ),
        *(({"N": 5}, {"loss_type": "discopop", "discopop_tau": tau}) for tau in (1e-3, 1.0, 3.0)),
    ],
    edges=[
        *(
            Edge(
                {
                    "chosen_log_probabilities": [-1e4, 0, -50, -1],
                    "rejected_log_probabilities": [0, -1e4, -50, -1],
                    "reference_chosen_log_probabilities": [0, -1e4, -50, -1],
                    "reference_rejected_log_probabilities": [-1e4, 0, -50, -1],
                },
                {"loss_type": loss_type, "beta": 1.0},
            )
            for loss_type in TYPES
            if loss_type != "exo_pair"
        ),
        *(
            Edge(_pairs(chosen=[-1, -1e4, 0, -30], rejected=[-1, 0, -1e4, -1]), {"beta": 1.0, **params})
            for params in (
                {"loss_type": "robust", "label_smoothing": 0.3},
                {"loss_type": "exo_pair", "label_smoothing": 0.001},
                {"loss_type": "exo_pair", "label_smoothing": 0.4},
            )
        ),
        # at the reference itself: the slopes in closed form
        *(
            Edge(_pairs([-1], [-1]), {"loss_type": loss_type, "beta": 2.0, **params}, _slopes(*slopes))
            for loss_type, params, slopes in (
                ("sigmoid", {}, (-1, 1)),
                ("robust", {"label_smoothing": 0.2}, (-1 - 2 / 3, 1 + 2 / 3)),
                ("exo_pair", {"label_smoothing": 0.2}, (-0.5 * log(4), 0.5 * log(4))),
                ("nca_pair", {}, (-0.5, 0.5)),
                ("apo_zero", {}, (-0.5, 0.5)),
                ("apo_down", {}, (0, 0.5)),
                ("sppo_hard", {}, (-0.5, 0.5)),
                ("discopop", {}, (20 * (1 - log(2)) / 2 - 1.5, 1.5 - 20 * (1 - log(2)) / 2)),
            )
        ),
        # the preference that is wanted: no slope
        Edge(
            _pairs([-1], [-1 - log(4)]),
            {"loss_type": "exo_pair", "beta": 1.0, "label_smoothing": 0.2},
            _slopes(0, 0),
        ),
        # the hinge exactly met: no slope
        Edge(
            {
                "chosen_log_probabilities": [-1],
                "rejected_log_probabilities": [-3],
                "reference_chosen_log_probabilities": [-2],
                "reference_rejected_log_probabilities": [-2],
            },
            {"loss_type": "hinge", "beta": 0.5},
            {"chosen_log_probabilities": [0], "rejected_log_probabilities": [0]},
        ),
        Edge(
            {
                "chosen_log_probabilities": [-1e4],
                "rejected_log_probabilities": [0],
                "reference_chosen_log_probabilities": [0],
                "reference_rejected_log_probabilities": [0],
            },
            {"beta": 1.0, "label_smoothing": 0.25},
            {"chosen_log_probabilities": [-0.75], "rejected_log_probabilities": [0.75]},
        ),
    ],
)
def dpo(
    chosen_log_probabilities: Array,
    rejected_log_probabilities: Array,
    reference_chosen_log_probabilities: Array,
    reference_rejected_log_probabilities: Array,
    *,
    beta: float,
    label_smoothing: float,
    loss_type: str,
    discopop_tau: float,
) -> dict[str, Array]:
    chosen = beta * (chosen_log_probabilities - reference_chosen_log_probabilities)
    rejected = beta * (rejected_log_probabilities - reference_rejected_log_probabilities)
    losses: list[float] = []
    for won, lost in zip(chosen, rejected, strict=True):
        # at 1e4 nats the losing probability has 4343 zeros after the point
        with mp.workdps(30 + int(abs(won) + abs(lost)) // 2):
            losses.append(
                float(_formula(loss_type, mpf(won), mpf(lost), mpf(beta), mpf(label_smoothing), discopop_tau))
            )
    return {"loss": np.array(losses), "chosen_rewards": chosen, "rejected_rewards": rejected}


def _formula(loss_type: str, won: Any, lost: Any, beta: Any, flipped: Any, tau: float) -> Any:
    """Return the loss of a pair from the rewards of its answers."""

    def sigmoid(reward: Any) -> Any:
        return 1 / (1 + mp.exp(-reward))

    lead, target = won - lost, 1 / (2 * beta)
    better, worse = sigmoid(lead), sigmoid(-lead)
    match loss_type:
        case "sigmoid":
            return -(1 - flipped) * mp.log(better) - flipped * mp.log(worse)
        case "hinge":
            return max(0, 1 - lead)
        case "ipo":
            return (lead / beta - target) ** 2
        case "robust":
            return (-(1 - flipped) * mp.log(better) + flipped * mp.log(worse)) / (1 - 2 * flipped)
        case "exo_pair":
            return better * mp.log(better / (1 - flipped)) + worse * mp.log(worse / flipped)
        case "nca_pair":
            return -mp.log(sigmoid(won)) - mp.log(sigmoid(-won)) / 2 - mp.log(sigmoid(-lost)) / 2
        case "apo_zero":
            return 1 - sigmoid(won) + sigmoid(lost)
        case "apo_down":
            return sigmoid(won) + 1 - better
        case "sppo_hard":
            return (won / beta - target) ** 2 + (lost / beta + target) ** 2
        case _:
            blend = sigmoid(lead / tau)
            return -mp.log(better) * (1 - blend) + mp.exp(-lead) * blend
