"""Losses that read a graph's edges off its nodes' embeddings, and penalties that keep those in shape."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex, Facts, OneOf
from service.catalogue.spec import Condition, Prediction, Target, Unreduced
from service.losses.exponentials import convexity
from service.losses.surprise import binary_surprise, softplus


def _edges(facts: Facts) -> Tensor:
    """Return how many ones the adjacency matrix has."""
    return facts.inputs["targets"].sum(dtype=torch.float64)


@loss(
    title="Graph autoencoder reconstruction",
    tasks=("graph",),
    aliases=("link_reconstruction", "gae"),
    keywords=(
        "link prediction",
        "graph autoencoder",
    ),
    work=("E D", "M D"),
    range=(0, None),
)
def gae_reconstruction(
    embeddings: Annotated[Tensor, Prediction("N D")],
    positive_edges: Annotated[Tensor, Target("2 E", ClassIndex("N"))],
    negative_edges: Annotated[Tensor, Target("2 M", ClassIndex("N"))],
) -> Annotated[Tensor, Unreduced("")]:
    r"""Cross entropy of inner products with sampled edges and non-edges: link prediction.

    Formula:
        \frac{1}{E} \sum_{(u, v) \in \mathcal{E}^+} \log\left(1 + e^{-z_u \cdot z_v}\right)
        + \frac{1}{M} \sum_{(u, v) \in \mathcal{E}^-} \log\left(1 + e^{z_u \cdot z_v}\right)

    Args:
        embeddings: One vector a node.
        positive_edges: Pairs of nodes that are linked: sources in the first row, targets in the second.
        negative_edges: Pairs of nodes that are not, as you sampled them; their number may differ.

    Use when:
        The graph is large and sparse, so that non-edges are sampled.

    Pitfalls:
        Nothing is sampled here: send the negative edges, and draw them anew at every step. The two kinds
        are averaged apart, so a thousand negatives weigh as much as ten positives. Edges are taken as sent:
        an undirected edge that is listed in both directions, or twice, counts twice.

    Sources:
        - Kipf and Welling (2016), Variational Graph Auto-Encoders, https://arxiv.org/abs/1611.07308
    """
    return (
        softplus(-_products(embeddings, positive_edges)).mean()
        + softplus(_products(embeddings, negative_edges)).mean()
    )


@loss(
    title="Adjacency reconstruction",
    tasks=("graph",),
    aliases=("dense_gae",),
    requires=(
        Condition(
            "/params/pos_weight",
            'at least one edge in the targets with pos_weight "auto"',
            got=lambda facts: "none",
            holds=lambda facts: facts.params["pos_weight"] != "auto" or _edges(facts) > 0,
        ),
        Condition(
            "/params/normalize",
            "at least one zero in the targets with normalize",
            got=lambda facts: "none",
            holds=lambda facts: not facts.params["normalize"] or _edges(facts) < facts.size("N") ** 2,
        ),
    ),
    work="N N D/512",
    coupled=True,
    range=(0, None),
)
def adjacency_reconstruction(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N N", OneOf((0, 1)))],
    *,
    pos_weight: Annotated[float, Ge(0)] | Literal["auto"] | None = None,
    normalize: bool = False,
) -> Annotated[Tensor, Unreduced("N N")]:
    r"""Cross entropy of all inner products with the adjacency matrix: small dense graphs.

    Formula:
        c \left(w\, y_{uv} \log(1 + e^{-z_u \cdot z_v}) + (1 - y_{uv}) \log(1 + e^{z_u \cdot z_v})\right),
        \quad w_\mathrm{auto} = \frac{N^2 - S}{S},
        \quad c_\mathrm{normalize} = \frac{N^2}{2 (N^2 - S)},
        \quad S = \sum_{uv} y_{uv}

    Args:
        embeddings: One vector a node.
        targets: Adjacency matrix of zeros and ones.
        pos_weight: Weight of the edges; "auto" makes edges and non-edges weigh the same, null is 1.
        normalize: Whether to scale by c, which with "auto" makes the mean one of two balanced halves.

    Use when:
        The graph is small enough for all pairs of its nodes.

    Pitfalls:
        The inner product of a node with itself is never negative: put ones on the diagonal of the targets
        (A + I), or the loss pulls every embedding to zero. A sparse graph is nearly all zeros: without
        "auto" predicting no edges at all is a good answer.

    Sources:
        - Kipf and Welling (2016), Variational Graph Auto-Encoders, https://arxiv.org/abs/1611.07308
    """
    logits = embeddings @ embeddings.mT
    pairs, edges = targets.numel(), targets.sum()
    weight = (pairs - edges) / edges if pos_weight == "auto" else 1.0 if pos_weight is None else pos_weight
    loss = binary_surprise(logits, weight * targets, 1 - targets)
    return loss * pairs / (2 * (pairs - edges)) if normalize else loss


@loss(title="VGAE prior", tasks=("graph",), work="4 means", range=(0, None))
def vgae_kl(
    means: Annotated[Tensor, Prediction("N D")], log_stds: Annotated[Tensor, Prediction("N D")]
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Divergence of each node's Gaussian from the standard normal, from log standard deviations.

    Formula:
        -\tfrac{1}{2} \sum_d \left(1 + 2 \ell_d - \mu_d^2 - e^{2 \ell_d}\right)

    Args:
        means: Mean of each node's embedding.
        log_stds: Logarithm of its standard deviation, not of its variance.

    Use when:
        You train a variational graph autoencoder, in addition to `gae_reconstruction` or
        `adjacency_reconstruction`.

    Pitfalls:
        The second input is the log of the standard deviation: half a log-variance. The usual objective adds
        the mean of this divided by N once more to the reconstruction. Bound `log_stds` in the encoder:
        their exponential overflows float32 near 44.

    Sources:
        - Kipf and Welling (2016), Variational Graph Auto-Encoders, https://arxiv.org/abs/1611.07308
    """
    return (means.square() + convexity(2 * log_stds)).sum(-1) / 2


@loss(
    title="Laplacian smoothness",
    tasks=("graph",),
    aliases=("dirichlet_energy",),
    work="E D",
    range=(0, None),
    scales=2,
)
def laplacian_smoothness(
    embeddings: Annotated[Tensor, Prediction("N D")],
    edges: Annotated[Tensor, Target("2 E", ClassIndex("N"))],
) -> Annotated[Tensor, Unreduced("E")]:
    r"""Squared distance between the embeddings of linked nodes: smooth signals on a graph.

    Formula:
        \|z_u - z_v\|^2

    Args:
        embeddings: One vector a node.
        edges: Pairs of linked nodes: sources in the first row, targets in the second.

    Use when:
        Neighbours should be alike, as a penalty in addition to another loss.

    Pitfalls:
        Alone it is 0 for equal embeddings everywhere. List each undirected edge once, or the sum is twice
        the Dirichlet energy; edge weights go into `sample_weight`.

    Sources:
        - Belkin and Niyogi (2003), Laplacian Eigenmaps for Dimensionality Reduction, https://doi.org/10.1162/089976603321780317
    """
    return (embeddings[edges[0]] - embeddings[edges[1]]).square().sum(-1)


def _products(embeddings: Tensor, edges: Tensor) -> Tensor:
    """Return the inner product of the two ends of each edge."""
    return (embeddings[edges[0]] * embeddings[edges[1]]).sum(-1)
