"""Preference losses from the Bradley-Terry probability, in high precision."""

from typing import Any

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "dpo",
    draws=[
        ({"N": 5}, {"label_smoothing": 0.3, "beta": 0.7}),
        ({"N": 5}, {"loss_type": "hinge", "beta": 2.0}),
        ({"N": 5}, {"loss_type": "ipo", "beta": 0.4}),
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
            for loss_type in ("sigmoid", "hinge", "ipo")
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
) -> dict[str, Array]:
    chosen = beta * (chosen_log_probabilities - reference_chosen_log_probabilities)
    rejected = beta * (rejected_log_probabilities - reference_rejected_log_probabilities)
    losses: list[float] = []
    for won, lost in zip(chosen, rejected, strict=True):
        # at 1e4 nats the losing probability has 4343 zeros after the point
        with mp.workdps(30 + int(abs(won - lost))):
            better = 1 / (1 + mp.exp(mpf(lost) - mpf(won)))
            margin = (mpf(won) - mpf(lost)) / beta
            if loss_type == "sigmoid":
                loss = -(1 - label_smoothing) * mp.log(better) - label_smoothing * mp.log(1 - better)
            elif loss_type == "hinge":
                loss = max(0, 1 - beta * margin)
            else:
                loss = (margin - 1 / mpf(2 * beta)) ** 2
            losses.append(float(loss))
    return {"loss": np.array(losses), "chosen_rewards": chosen, "rejected_rewards": rejected}
