"""Reconstruction losses edge by edge, the prior from the densities of the two Gaussians."""

from typing import Any

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.stats import norm

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]

FAR = [[100.0, 0.0], [100.0, 0.0], [-100.0, 0.0]]


@oracles.of(
    "gae_reconstruction",
    draws=[({"N": 6, "D": 3, "E": 7, "M": 2}, {}), ({"N": 1, "D": 1, "E": 1, "M": 1}, {})],
    edges=[
        # confident and right, then confident and wrong: the gradient stays alive
        Edge(
            {"embeddings": FAR, "positive_edges": [[0], [1]], "negative_edges": [[0], [2]]},
            gradients={"embeddings": [[0, 0]] * 3},
        ),
        Edge(
            {"embeddings": FAR, "positive_edges": [[0], [2]], "negative_edges": [[0], [1]]},
            gradients={"embeddings": [[200, 0], [100, 0], [-100, 0]]},
        ),
        # self-loops and an edge that is sent twice
        Edge(
            {
                "embeddings": [[0.3, -0.2], [0.5, 0.1]],
                "positive_edges": [[0, 0, 1], [1, 1, 1]],
                "negative_edges": [[0], [0]],
            }
        ),
    ],
)
def gae_reconstruction(embeddings: Array, positive_edges: Array, negative_edges: Array) -> float:
    linked = [np.logaddexp(0, -np.dot(embeddings[u], embeddings[v])) for u, v in positive_edges.T]
    apart = [np.logaddexp(0, np.dot(embeddings[u], embeddings[v])) for u, v in negative_edges.T]
    return float(np.mean(linked) + np.mean(apart))


@oracles.of(
    "adjacency_reconstruction",
    draws=[
        ({"N": 5, "D": 3}, {"pos_weight": 2.5}),
        ({"N": 5, "D": 3}, {"pos_weight": "auto", "normalize": True}),
        ({"N": 1, "D": 2}, {"pos_weight": 0.0}),
    ],
    edges=[
        Edge({"embeddings": FAR, "targets": np.eye(3).tolist()}),
        Edge({"embeddings": FAR, "targets": np.zeros((3, 3)).tolist()}, {"normalize": True}),
        Edge({"embeddings": FAR, "targets": np.ones((3, 3)).tolist()}, {"pos_weight": "auto"}),
    ],
)
def adjacency_reconstruction(embeddings: Array, targets: Array, *, pos_weight: Any, normalize: bool) -> Array:
    size = len(embeddings)
    ones, zeros = (targets == 1).sum(), (targets == 0).sum()
    weight = {None: 1.0, "auto": zeros / ones if ones else np.nan}.get(pos_weight, pos_weight)
    loss = np.empty((size, size))
    for u in range(size):
        for v in range(size):
            product = sum(a * b for a, b in zip(embeddings[u], embeddings[v], strict=True))
            edge = targets[u, v] == 1
            loss[u, v] = weight * np.logaddexp(0, -product) if edge else np.logaddexp(0, product)
    return loss * (size**2 / zeros / 2) if normalize else loss


@oracles.of(
    "vgae_kl",
    grows=True,
    draws=[({"N": 3, "D": 5}, {}), ({"N": 1, "D": 1}, {})],
    edges=[
        Edge(
            {"means": [[0.0, 0.0]], "log_stds": [[0.0, 0.0]]},
            gradients={"means": [[0, 0]], "log_stds": [[0, 0]]},
        ),
        # a tiny deviation from the prior
        Edge({"means": [[1e-5]], "log_stds": [[1e-5]]}, gradients={"means": [[1e-5]]}),
        Edge({"means": [[-3.0]], "log_stds": [[-4.0]]}),
    ],
)
def vgae_kl(means: Array, log_stds: Array) -> Array:
    # E[log q - log p] over q by Gauss-Hermite quadrature, exact for the quadratic it is
    nodes, weights = hermegauss(5)
    stds = np.exp(log_stds)[..., None]
    samples = means[..., None] + stds * nodes
    ratio = norm.logpdf(samples, means[..., None], stds) - norm.logpdf(samples)
    return ((ratio * weights).sum(-1) / weights.sum()).sum(-1)


@oracles.of(
    "laplacian_smoothness",
    draws=[({"N": 5, "D": 3, "E": 9}, {}), ({"N": 1, "D": 1, "E": 1}, {})],
    edges=[
        Edge({"embeddings": [[1.0, 2.0], [4.0, 6.0]], "edges": [[0], [1]]}),
        # a self-loop costs nothing
        Edge(
            {"embeddings": [[1.0, 2.0], [4.0, 6.0]], "edges": [[1], [1]]},
            gradients={"embeddings": [[0, 0], [0, 0]]},
        ),
    ],
)
def laplacian_smoothness(embeddings: Array, edges: Array) -> list[float]:
    # trace(Z' L Z) of the Laplacian of the graph of that one edge
    found: list[float] = []
    for u, v in edges.T:
        incidence = np.zeros(len(embeddings))
        incidence[u] += 1
        incidence[v] -= 1
        found.append(float(np.trace(embeddings.T @ np.outer(incidence, incidence) @ embeddings)))
    return found
