"""Likelihoods from scipy's Gaussian, and from the densities of the others in many digits."""

from math import log, pi

import mpmath
import numpy as np
import scipy.special
import scipy.stats

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, Number, elementwise

oracles = Oracles()


@oracles.of(
    "gaussian_nll",
    draws=[
        ({"...": (), "D": 3}, {}),
        ({"...": (4, 2), "D": 3}, {"full": True}),
        ({"...": (4,), "D": 3}, {"eps": 1.5}),
    ],
    edges=[
        # below the floor the gradient is the one at the floor, not 0
        Edge(
            {"predictions": [1.0, 2.0, 0.0], "targets": [0.0, 0.0, 0.0], "variances": [0.0, 0.25, 4.0]},
            {"eps": 0.5},
            {"predictions": [2, 4, 0], "variances": [-1, -7, 0.125]},
        ),
        # one variance for a row of one, of three, and none for a mean without rows
        Edge({"predictions": [1.0, 2.0, 5.0], "targets": [0.0, 0.0, 0.0], "variances": [2.0]}),
        Edge({"predictions": [[1.0], [2.0]], "targets": [[0.0], [0.0]], "variances": [[2.0], [3.0]]}),
        Edge({"predictions": 1.0, "targets": 0.0, "variances": 2.0}, {}, {"variances": 0.125}),
        Edge({"predictions": [1e200], "targets": [0.0], "variances": [1e250]}),
    ],
)
def gaussian_nll(predictions: Array, targets: Array, variances: Array, *, full: bool, eps: float) -> Array:
    deviations: Array = np.sqrt(np.where(variances > eps, variances, eps)) * np.ones_like(predictions)
    loss: Array = -np.asarray(scipy.stats.norm.logpdf(targets, predictions, deviations))
    return loss if full else loss - log(2 * pi) / 2


@oracles.of(
    "laplace_nll",
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {})],
    edges=[
        Edge(
            {"predictions": [1.0, 3.0, 1e4], "targets": [1.0, 1.0, -1e4], "scales": [0.5, 0.5, 1e-3]},
            {},
            {"predictions": [0, 2, 1e3], "scales": [2, -6, 1e3 - 2e10]},
        )
    ],
)
def laplace_nll(predictions: Array, targets: Array, scales: Array) -> Array:
    def formula(p: Number, t: Number, b: Number) -> Number:
        return -mpmath.log(mpmath.exp(-abs(p - t) / b) / (2 * b))

    return elementwise(formula, predictions, targets, scales)


TAILS = {
    "predictions": [0.0, 1.0, -1e4, 1e30, 1e200, 1e-9],
    "targets": [0.0, 0.5, 1e4, 0.0, 0.0, 0.0],
    "scales": [1.0, 1e-3, 2.0, 5.0, 1.0, 1e3],
}


@oracles.of(
    "student_t_nll",
    draws=[({"...": ()}, {}), *[({"...": (4, 5)}, {"df": df}) for df in (0.5, 1.0, 99.0, 101.0, 1e6, 1e12)]],
    edges=[
        *[Edge(TAILS, {"df": df}) for df in (1e-3, 1.0, 4.0, 99.9, 100.1)],
        *[
            Edge(
                {"predictions": [0.0, 1.0, 30.0], "targets": [0.0, 0.5, 0.0], "scales": [1.0, 0.1, 2.0]},
                {"df": df},
            )
            for df in (1e3, 1e7, 1e10, 1e15, 1e300)
        ],
        # many degrees of freedom are a Gaussian
        Edge(
            {"predictions": [3.0], "targets": [1.0], "scales": [0.5]},
            {"df": 1e300},
            {"predictions": [8], "scales": [-30]},
        ),
        Edge(
            {"predictions": [1e200], "targets": [0.0], "scales": [2.0]},
            {},
            {"predictions": [0], "scales": [-2]},
        ),
    ],
)
def student_t_nll(predictions: Array, targets: Array, scales: Array, *, df: float) -> Array:
    def formula(p: Number, t: Number, s: Number) -> Number:
        # beyond 90 digits the distribution is its limit
        if df > 1e30:
            return mpmath.log(s * mpmath.sqrt(2 * mpmath.pi)) + ((p - t) / s) ** 2 / 2
        v = mpmath.mpf(df)
        normaliser = mpmath.loggamma(v / 2) - mpmath.loggamma((v + 1) / 2) + mpmath.log(v * mpmath.pi) / 2
        return normaliser + mpmath.log(s) + (v + 1) / 2 * mpmath.log(1 + ((p - t) / s) ** 2 / v)

    return elementwise(formula, predictions, targets, scales)


@oracles.of(
    "mixture_gaussian_nll",
    draws=[({"N": 5, "K": 1, "D": 1}, {}), ({"N": 3, "K": 4, "D": 2}, {})],
    edges=[
        # a component that is certain, and targets beyond the reach of every exponential
        Edge(
            {
                "logits": [[1e4, -1e4], [0.0, 0.0]],
                "means": [[[1.0], [0.0]], [[1e4], [-1e4]]],
                "scales": [[[1.0], [1.0]], [[1.0], [1.0]]],
                "targets": [[0.0], [1.0]],
            },
            {},
            {"logits": [[0, 0], [-0.5, 0.5]], "means": [[[1], [0]], [[9999], [0]]]},
        )
    ],
)
def mixture_gaussian_nll(logits: Array, means: Array, scales: Array, targets: Array) -> Array:
    loss = np.empty(len(logits))
    for n in range(len(logits)):
        joint = [
            logits[n, k] + scipy.stats.norm.logpdf(targets[n], means[n, k], scales[n, k]).sum()
            for k in range(logits.shape[1])
        ]
        loss[n] = scipy.special.logsumexp(logits[n]) - scipy.special.logsumexp(joint)
    return loss
