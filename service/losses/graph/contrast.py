"""Losses that set true nodes, neighbours, features and facts against others."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.surprise import softplus
from service.losses.vectors import one_minus_cosine


@loss(title="Deep graph infomax", tasks=("graph",), aliases=("deep_graph_infomax",), range=(0, None))
def dgi(
    positive: Annotated[Tensor, Prediction("N D")],
    negative: Annotated[Tensor, Prediction("N D")],
    summary: Annotated[Tensor, Prediction("D")],
    weights: Annotated[Tensor, Prediction("D D")],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Tells nodes of a graph from nodes of a corrupted one by the graph's summary, without labels.

    Formula:
        \log\left(1 + e^{-h_i^\top W s}\right) + \log\left(1 + e^{\tilde h_i^\top W s}\right)

    Args:
        positive: Embeddings of the graph's nodes.
        negative: Embeddings of a corrupted graph's nodes, its features shuffled for instance.
        summary: One vector for the graph, as a rule the sigmoid of the mean embedding.
        weights: Matrix of the bilinear discriminator.

    Use when:
        You pretrain a node encoder and have no labels.

    Pitfalls:
        The summary is yours to compute, and its gradient must flow back to the encoder. The order is h W s:
        a discriminator that computes s W h needs its matrix transposed.

    Sources:
        - Veličković et al. (2019), Deep Graph Infomax, https://arxiv.org/abs/1809.10341
    """
    probe = weights @ summary
    return softplus(-(positive @ probe)) + softplus(negative @ probe)


@loss(
    title="Skip-gram with negative sampling",
    tasks=("graph",),
    aliases=("graphsage", "node2vec", "word2vec"),
    range=(0, None),
)
def skipgram_negative_sampling(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    negative: Annotated[Tensor, Prediction("N K D")],
    *,
    negative_weight: Annotated[float, Ge(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Tells a node's or word's neighbour from random ones by inner products: node2vec, word2vec.

    Formula:
        \log\left(1 + e^{-a \cdot p}\right) + w \sum_k \log\left(1 + e^{a \cdot n_k}\right)

    Args:
        anchor: Embedding of each node.
        positive: Embedding of a neighbour, on a random walk for instance.
        negative: Embeddings of K nodes drawn at random.
        negative_weight: Weight of the sum over the negatives.

    Use when:
        You embed nodes or words by the company they keep.

    Pitfalls:
        The negatives are summed, not averaged: with more of them they outweigh the positive. For their mean
        send 1/K as `negative_weight`.

    Sources:
        - Mikolov et al. (2013), Distributed Representations of Words and Phrases, https://arxiv.org/abs/1310.4546
        - Hamilton et al. (2017), Inductive Representation Learning on Large Graphs, https://arxiv.org/abs/1706.02216
    """
    near = (anchor * positive).sum(-1)
    far = (anchor[:, None] * negative).sum(-1)
    return softplus(-near) + negative_weight * softplus(far).sum(-1)


@loss(
    title="Scaled cosine error",
    tasks=("graph",),
    aliases=("graphmae",),
    range=lambda params: (0, 2 ** params["gamma"]),
    scales=0,
)
def scaled_cosine_error(
    predictions: Annotated[Tensor, Prediction("... D")],
    targets: Annotated[Tensor, Target("... D")],
    *,
    gamma: Annotated[float, Ge(1)] = 3.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Cosine distance to a power, which leaves easy samples alone: masked graph autoencoders.

    Formula:
        \left(1 - \frac{\hat y \cdot y}{\|\hat y\| \|y\|}\right)^\gamma

    Args:
        predictions: Reconstructed features of each masked node.
        targets: Its features.
        gamma: Power; 1 is the cosine distance itself, more plays down small errors.

    Use when:
        You reconstruct the features of masked nodes, and their lengths vary too much for a squared error.

    Pitfalls:
        Lengths are not learned. The distance is at most 2, so errors above 1 (more than a right angle) are
        amplified by the power. A zero vector has no direction: it is at distance 1 from everything, and has
        no gradient.

    Sources:
        - Hou et al. (2022), GraphMAE: Self-Supervised Masked Graph Autoencoders, https://arxiv.org/abs/2205.10803
    """
    return one_minus_cosine(predictions, targets).pow(gamma)


@loss(
    title="Self-adversarial negative sampling",
    tasks=("graph",),
    aliases=("rotate_loss", "self_adversarial_negative_sampling"),
    work="fake_scores",
    exact_gradient=False,
    range=(0, None),
)
def self_adversarial(
    real_scores: Annotated[Tensor, Prediction("N")],
    fake_scores: Annotated[Tensor, Prediction("N K")],
    *,
    margin: float = 9.0,
    adversarial_temperature: Annotated[float, Ge(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Tells facts from corrupted ones, the most plausible of which count most: knowledge graphs.

    Formula:
        \tfrac{1}{2} \left(\log\left(1 + e^{-(\gamma + r)}\right)
        + \sum_k w_k \log\left(1 + e^{\gamma + f_k}\right)\right),
        \quad w = \mathrm{softmax}(\alpha f)

    Args:
        real_scores: Plausibility of each fact, higher is likelier: as a rule minus a distance.
        fake_scores: Plausibility of K corruptions of it.
        margin: Distance below which a fact is held to be true.
        adversarial_temperature: How much the plausible corruptions count before the others; 0 is all alike.

    Use when:
        You embed a knowledge graph, and most random corruptions are too easy to teach anything.

    Pitfalls:
        Send minus the distance, not the distance. The weights count as constants: the gradient leaves them
        out, so it is not the derivative of the value. The margin has the scale of the distances: 9 suits
        those of RotatE, of hundreds of dimensions.

    Sources:
        - Sun et al. (2019), RotatE: Knowledge Graph Embedding by Relational Rotation, https://arxiv.org/abs/1902.10197
    """
    # without a temperature all count alike, where 0 times an infinite score would be NaN
    sharpened = (
        adversarial_temperature * fake_scores if adversarial_temperature else torch.zeros_like(fake_scores)
    )
    fake = (sharpened.softmax(-1).detach() * softplus(margin + fake_scores)).sum(-1)
    return (fake + softplus(-margin - real_scores)) / 2
