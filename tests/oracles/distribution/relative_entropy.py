"""Divergences from scipy's elementwise relative entropy, from entropies, and as an expectation."""

from math import inf, log, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr
from scipy.special import kl_div as generalized

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
HALVES = log(0.5)


@oracles.of(
    "kl_div",
    draws=[
        ({"...": (), "C": 6}, {}),
        ({"...": (2, 3), "C": 4}, {"log_target": True, "pointwise": True}),
        ({"...": (3,), "C": 1}, {}),
    ],
    edges=[
        # 0 log 0 = 0, even against a predicted probability of 0
        Edge(
            {"log_probabilities": [[-inf, HALVES, HALVES]], "targets": [[0.0, 0.5, 0.5]]},
            gradients={"log_probabilities": [[0, -0.5, -0.5]]},
        ),
        Edge(
            {"log_probabilities": [[-inf, 0.0]], "targets": [[-inf, 0.0]]},
            {"log_target": True},
            gradients={"log_probabilities": [[0, -1]]},
        ),
        Edge({"log_probabilities": [-inf, 0.0], "targets": [0.25, 0.75]}),
        Edge({"log_probabilities": [[-1e4, 0.0]], "targets": [[1.0, 0.0]]}),
    ],
)
def kl_div(log_probabilities: Array, targets: Array, *, log_target: bool, pointwise: bool) -> Array:
    known = np.exp(targets) if log_target else targets
    # the relative entropy to e^lp, written for an lp whose exponential underflows too
    underflow = (known > 0) & (log_probabilities < -700)
    with np.errstate(invalid="ignore"):
        terms = np.where(
            underflow,
            -entr(known) - known * log_probabilities,
            rel_entr(known, np.exp(log_probabilities)),
        )
    return terms if pointwise else terms.sum(-1)


@oracles.of(
    "kl_div_probabilities",
    draws=[({"...": (2, 3), "C": 5}, {"eps": 0.2})],
    edges=[
        # a clamped probability has no gradient, a certain one has
        Edge(
            {"probabilities": [[0.0, 1.0]], "targets": [[1.0, 0.0]]},
            gradients={"probabilities": [[0, -1e-7]]},
        ),
        # clamping can make the divergence slightly negative
        Edge({"probabilities": [[0.3, 0.7]], "targets": [[0.0, 1.0]]}, {"eps": 0.25}),
    ],
)
def kl_div_probabilities(probabilities: Array, targets: Array, *, eps: float) -> Array:
    p, t = np.clip(probabilities, eps, None), np.clip(targets, eps, None)
    return -(t * np.log(p / t)).sum(-1)


@oracles.of(
    "generalized_kl",
    grows=True,
    draws=[({"...": (), "C": 6}, {}), ({"...": (4, 2), "C": 1}, {})],
    edges=[
        Edge(
            {"log_probabilities": [[-inf, 0.0, 2.0]], "targets": [[0.0, 1.0, 0.0]]},
            gradients={"log_probabilities": [[0, 0, np.exp(2)]]},
        ),
        Edge({"log_probabilities": [-600.0, 30.0], "targets": [3.0, 1e9]}),
    ],
)
def generalized_kl(log_probabilities: Array, targets: Array) -> Array:
    return generalized(targets, np.exp(log_probabilities)).sum(-1)


@oracles.of(
    "reverse_kl",
    draws=[({"...": (), "C": 5}, {}), ({"...": (2, 2), "C": 4}, {"log_target": True})],
    edges=[
        Edge(
            {"log_probabilities": [[-inf, 0.0]], "targets": [[0.25, 0.75]]},
            gradients={"log_probabilities": [[0, 1 - log(0.75)]]},
        ),
        Edge({"log_probabilities": [[-inf, 0.0]], "targets": [[-inf, 0.0]]}, {"log_target": True}),
        Edge({"log_probabilities": [-1e4, 0.0], "targets": [-1.0, -0.5]}, {"log_target": True}),
    ],
)
def reverse_kl(log_probabilities: Array, targets: Array, *, log_target: bool) -> Array:
    return rel_entr(np.exp(log_probabilities), np.exp(targets) if log_target else targets).sum(-1)


@oracles.of(
    "js_div",
    draws=[({"...": (), "C": 7}, {}), ({"...": (2, 3), "C": 2}, {})],
    edges=[
        # disjoint: ln 2, with a finite gradient on the side that has mass
        Edge(
            {"probabilities": [[0.5, 0.5, 0.0]], "targets": [[0.0, 0.0, 1.0]]},
            gradients={"probabilities": [[log(2) / 2, log(2) / 2, nan]]},
        ),
        # equal: nothing to gain, neither where there is mass nor where there is none
        Edge(
            {"probabilities": [[0.3, 0.7, 0.0]], "targets": [[0.3, 0.7, 0.0]]},
            gradients={"probabilities": [[0, 0, 0]]},
        ),
    ],
)
def js_div(probabilities: Array, targets: Array) -> Array:
    mixture = (probabilities + targets) / 2
    return (entr(mixture) - (entr(probabilities) + entr(targets)) / 2).sum(-1)


@oracles.of(
    "gaussian_kl",
    grows=True,
    draws=[({"...": (), "D": 6}, {}), ({"...": (2, 3), "D": 1}, {})],
    edges=[
        Edge(
            {
                "means": [[0.5, 1.0]],
                "log_variances": [[0.2, -1.0]],
                "target_means": [[0.5, 1.0]],
                "target_log_variances": [[0.2, -1.0]],
            },
            gradients={"means": [[0, 0]], "log_variances": [[0, 0]]},
        ),
        # saturated alike: the ratio of the variances is 1, though both over- and underflow
        Edge(
            {
                "means": [[2.0, -1.0]],
                "log_variances": [[1e4, -1e4]],
                "target_means": [[3.0, -1.0]],
                "target_log_variances": [[1e4, -1e4]],
            },
            gradients={"means": [[0, 0]], "log_variances": [[0, 0]]},
        ),
    ],
)
def gaussian_kl(
    means: Array, log_variances: Array, target_means: Array, target_log_variances: Array
) -> Array:
    # E[ln p - ln t] of standardised samples: a quadratic, which a quadrature of four nodes gives exactly
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    samples = nodes.reshape(-1, *[1] * means.ndim)
    with np.errstate(over="ignore", invalid="ignore"):
        shift = np.where(means == target_means, 0, (means - target_means) * np.exp(-target_log_variances / 2))
    standardised = np.exp((log_variances - target_log_variances) / 2) * samples + shift
    log_ratio = (target_log_variances - log_variances - samples**2 + standardised**2) / 2
    return np.tensordot(weights / weights.sum(), log_ratio, axes=1).sum(-1)
