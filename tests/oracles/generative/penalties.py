"""Gradient penalties sample by sample, with numpy's norm of the flattened sample."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "gradient_penalty",
    draws=[
        ({"N": 3, "...": (2, 4, 4)}, {"penalty_weight": 3.0, "norm_target": 0.5}),
        ({"N": 3, "...": ()}, {"norm_target": 0.0}),
        ({"N": 2, "...": (5,)}, {"penalty_weight": 0.0}),
    ],
    edges=[
        # a zero gradient costs its distance from the target norm, and has no direction
        Edge(
            {"input_gradients": [[0.0, 0.0], [3.0, 4.0]]}, gradients={"input_gradients": [[0, 0], [48, 64]]}
        ),
        Edge({"input_gradients": [[0.6, 0.8]]}, gradients={"input_gradients": [[0, 0]]}),
        Edge({"input_gradients": [[1e4, -1e4]]}),
    ],
)
def gradient_penalty(input_gradients: Array, *, penalty_weight: float, norm_target: float) -> Array:
    norms = np.array([np.linalg.norm(np.ravel(sample)) for sample in input_gradients])
    return penalty_weight * (norms**2 - 2 * norms * norm_target + norm_target**2)


@oracles.of(
    "r1_penalty",
    draws=[
        ({"N": 3, "...": (2, 4, 4)}, {"penalty_weight": 3.0}),
        ({"N": 3, "...": ()}, {}),
    ],
    edges=[
        Edge(
            {"input_gradients": [[0.0, 0.0], [1e4, -1e4]]},
            gradients={"input_gradients": [[0, 0], [1e5, -1e5]]},
        )
    ],
)
def r1_penalty(input_gradients: Array, *, penalty_weight: float) -> Array:
    return np.array([penalty_weight / 2 * np.vdot(sample, sample) for sample in input_gradients])
