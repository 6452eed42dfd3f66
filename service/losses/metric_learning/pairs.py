"""Losses on two members that a label calls alike or not, and on their distance or angle."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import OneOf
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.vectors import length, one_minus_cosine


@loss(
    title="Contrastive",
    tasks=("metric_learning",),
    aliases=("siamese", "pair_contrastive"),
    keywords=(
        "Siamese network",
        "signature verification",
        "face verification",
        "duplicate detection",
        "few-shot",
    ),
    range=(0, None),
    scales=Scales(2, ("anchor", "other"), along=("margin",)),
)
def contrastive(
    anchor: Annotated[Tensor, Prediction("N D")],
    other: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", OneOf((0, 1)))],
    *,
    margin: Annotated[float, Gt(0)] = 1.0,
    similar_label: Literal[0, 1] = 0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Squared distance of similar pairs, squared shortfall from a margin of dissimilar ones.

    Formula:
        \begin{cases} d^2 / 2 & y = s \\ \max(0, m - d)^2 / 2 & y \ne s \end{cases},
        \quad d = \lVert a - o \rVert_2

    Args:
        anchor: Embedding of one member of each pair.
        other: Embedding of the other member.
        targets: Whether the members are similar, 0 or 1 as `similar_label` says.
        margin: Distance from which on a dissimilar pair costs nothing.
        similar_label: Which of the two labels means similar.

    Use when:
        Pairs are labelled same or different, as in the verification of faces, signatures or duplicates.

    Pitfalls:
        The label convention: here, as in the paper, 1 means dissimilar. Many libraries mean similar by it:
        send `similar_label` 1 for theirs. Inverted labels train without an error, towards the opposite. A
        dissimilar pair at one point has gradient 0, so the loss cannot part it.

    Sources:
        - Hadsell et al. (2006), Dimensionality Reduction by Learning an Invariant Mapping,
          https://doi.org/10.1109/CVPR.2006.100
    """
    offset = anchor - other
    similar, dissimilar = offset.square().sum(-1), F.relu(margin - length(offset)).square()
    return torch.where(targets == similar_label, similar, dissimilar) / 2


@loss(
    title="Cosine embedding",
    tasks=("metric_learning",),
    keywords=(
        "sentence similarity",
        "semantic similarity",
        "text embeddings",
    ),
    range=(0, 2),
    scales=Scales(0, ("anchor", "other")),
)
def cosine_embedding(
    anchor: Annotated[Tensor, Prediction("N D")],
    other: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", OneOf((-1, 1)))],
    *,
    margin: Annotated[float, Ge(-1), Le(1)] = 0.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""One minus the cosine of similar pairs, the cosine beyond a margin of dissimilar ones.

    Formula:
        \begin{cases} 1 - c & y = 1 \\ \max(0, c - m) & y = -1 \end{cases},
        \quad c = \frac{a \cdot o}{\lVert a \rVert \lVert o \rVert}

    Args:
        anchor: Embedding of one member of each pair.
        other: Embedding of the other member.
        targets: 1 for a similar pair, -1 for a dissimilar one.
        margin: Cosine up to which a dissimilar pair costs nothing.

    Use when:
        Only the direction of an embedding means something, as for texts compared by cosine similarity.

    Pitfalls:
        The labels are -1 and 1, not 0 and 1. The default margin of 0 asks no more of dissimilar pairs
        than a right angle; in few dimensions even that may be impossible for many classes at once. A
        zero vector has no direction: its cosine to all others is 0, and it gets no gradient.

    Sources:
        - PyTorch, CosineEmbeddingLoss, https://pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html
    """
    distance = one_minus_cosine(anchor, other)
    return torch.where(targets == 1, distance, F.relu(1 - margin - distance))


@loss(
    title="Hinge embedding", tasks=("metric_learning",), scales=Scales(1, ("distances",), along=("margin",))
)
def hinge_embedding(
    distances: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", OneOf((-1, 1)))],
    *,
    margin: float = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""The distance itself where a pair is similar, its shortfall from a margin where it is not.

    Formula:
        \begin{cases} x & y = 1 \\ \max(0, m - x) & y = -1 \end{cases}

    Args:
        distances: How far apart the members of each pair are, by any measure.
        targets: 1 for a similar pair, -1 for a dissimilar one.
        margin: Distance from which on a dissimilar pair costs nothing.

    Use when:
        The distance comes from elsewhere, as in semi-supervised learning from pairs.

    Pitfalls:
        Not the hinge loss of a support vector machine: the input is a distance, not a score, and a smaller
        one is better for 1. The labels are -1 and 1; some libraries take 0 without an error and then add both
        cases.

    Sources:
        - PyTorch, HingeEmbeddingLoss, https://pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html
    """
    return torch.where(targets == 1, distances, F.relu(margin - distances))


@loss(
    title="Cosine distance",
    tasks=("metric_learning",),
    aliases=("cosine_similarity", "negative_cosine"),
    keywords=(
        "sentence similarity",
        "semantic similarity",
        "text embeddings",
    ),
    range=(0, 2),
    scales=0,
)
def cosine_distance(
    predictions: Annotated[Tensor, Prediction("... D")],
    targets: Annotated[Tensor, Target("... D")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""One minus the cosine of the angle between two vectors: direction counts, length does not.

    Formula:
        1 - \frac{\hat y \cdot y}{\max(\lVert \hat y \rVert_2, 10^{-8})\, \max(\lVert y \rVert_2, 10^{-8})}

    Args:
        predictions: Estimated vectors along the last axis.
        targets: Vectors to point along.

    Use when:
        Regressing directions or normals, or matching the output of another network, as BYOL and SimSiam do
        (BYOL minimises twice this).

    Pitfalls:
        Keras' `CosineSimilarity` loss is the negative cosine: this less 1. The targets get no gradient unless
        it is asked for; self-supervised methods need just that. A zero vector has no direction: it
        costs 1, and gets no gradient. A gradient grows as one over the length of its vector.

    Sources:
        - Grill et al. (2020), Bootstrap Your Own Latent, https://arxiv.org/abs/2006.07733
        - Chen and He (2021), Exploring Simple Siamese Representation Learning, https://arxiv.org/abs/2011.10566
    """
    return one_minus_cosine(predictions, targets)
