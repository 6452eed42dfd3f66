"""Variational losses as expectations and by scipy's densities; the commitment as one squared distance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from scipy.stats import norm

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


@oracles.of(
    "vae_kl",
    grows=True,
    draws=[({"N": 3, "...": (2, 3)}, {}), ({"N": 4, "...": ()}, {})],
    edges=[
        # the prior itself
        Edge(
            {"means": [[0.0, 0.0]], "log_variances": [[0.0, 0.0]]},
            gradients={"means": [[0, 0]], "log_variances": [[0, 0]]},
        ),
        # no variance left: the divergence grows with the logarithm only
        Edge(
            {"means": [[1e4, -1e4]], "log_variances": [[-1e4, -1e4]]},
            gradients={"means": [[1e4, -1e4]], "log_variances": [[-0.5, -0.5]]},
        ),
    ],
)
def vae_kl(means: Array, log_variances: Array) -> Array:
    # E[ln q - ln p] under the posterior: a quadratic, which a quadrature of four nodes gives exactly
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    nodes = nodes.reshape(-1, *[1] * means.ndim)
    codes = means + np.exp(log_variances / 2) * nodes
    log_ratio = (codes**2 - nodes**2 - log_variances) / 2
    expected = np.tensordot(weights / weights.sum(), log_ratio, axes=1)
    return expected.reshape(len(means), -1).sum(1)


@oracles.of(
    "vae_elbo",
    grows=True,
    draws=[
        ({"N": 3, "...": (2, 3), "Z": 2}, {"beta": 4.0}),
        ({"N": 3, "...": (), "Z": 1}, {"beta": 0.0}),
        ({"N": 2, "...": (5,), "Z": 3}, {"likelihood": "gaussian", "observation_variance": 0.1}),
        (
            {"N": 2, "...": (2, 2), "Z": 3},
            {"likelihood": "gaussian", "observation_variance": 3.0, "beta": 0.5},
        ),
    ],
    edges=[
        # saturated logits, right and wrong
        Edge(
            {
                "predictions": [[1e4, -1e4, 1e4]],
                "targets": [[1.0, 0.0, 0.0]],
                "means": [[0.0]],
                "log_variances": [[0.0]],
            },
            gradients={"predictions": [[0, 0, 1]], "means": [[0]], "log_variances": [[0]]},
        ),
        # a perfect reconstruction still has the constant of the density; targets may be any numbers
        Edge(
            {
                "predictions": [[-3.0, 7.0]],
                "targets": [[-3.0, 7.0]],
                "means": [[0.5]],
                "log_variances": [[0.0]],
            },
            {"likelihood": "gaussian", "observation_variance": 1e-4},
            gradients={"predictions": [[0, 0]]},
        ),
    ],
)
def vae_elbo(
    predictions: Array,
    targets: Array,
    means: Array,
    log_variances: Array,
    *,
    likelihood: str,
    beta: float,
    observation_variance: float,
) -> dict[str, Array]:
    if likelihood == "bernoulli":
        log_density = targets * log_expit(predictions) + (1 - targets) * log_expit(-predictions)
    else:
        log_density = norm.logpdf(targets, predictions, np.sqrt(observation_variance))
    reconstruction = -np.reshape(log_density, (len(predictions), -1)).sum(1)
    kl = vae_kl(means, log_variances)
    return {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}


@oracles.of(
    "vq_commitment",
    draws=[({"...": ()}, {}), ({"...": (2, 3, 4)}, {"beta": 2.0})],
    edges=[
        # the codes learn from the first term, the encoder from the second
        Edge(
            {"embeddings": [3.0, 1.0], "codes": [1.0, 1.0]},
            gradients={"embeddings": [1, 0], "codes": [-4, 0]},
        ),
        Edge(
            {"embeddings": [3.0], "codes": [1.0]}, {"beta": 0.0}, gradients={"embeddings": [0], "codes": [-4]}
        ),
    ],
)
def vq_commitment(embeddings: Array, codes: Array, *, beta: float) -> Array:
    return (1 + beta) * np.abs(embeddings - codes) ** 2
