"""Losses on given triplets: an anchor shall be nearer to its positive than to its negative."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Form, Prediction, Scales, Unreduced
from service.losses.vectors import length, one_minus_cosine

Distance = Literal["euclidean", "squared_euclidean", "cosine", "manhattan"]


@loss(
    title="Triplet margin",
    tasks=("metric_learning",),
    aliases=("triplet",),
    keywords=(
        "image retrieval",
        "face recognition",
        "person re-identification",
        "ReID",
        "few-shot",
        "embeddings",
        "hashing",
    ),
    work="3 anchor",
    range=(0, None),
    scales=Scales(1, along=("margin", "eps")),
)
def triplet_margin(
    anchor: Annotated[Tensor, Prediction([Form("N D"), Form("D")])],
    positive: Annotated[Tensor, Prediction([Form("N D"), Form("D")])],
    negative: Annotated[Tensor, Prediction([Form("N D"), Form("D")])],
    *,
    margin: Annotated[float, Gt(0)] = 1.0,
    p: Annotated[float, Gt(0)] = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
) -> Annotated[Tensor, Unreduced([Form("N"), Form("")])]:
    r"""How far the positive is from being nearer than the negative by a margin.

    Formula:
        \max(0, m + d(a, p) - d(a, n)), \quad d(x, y) = \lVert x - y + \varepsilon \rVert_p

    Args:
        anchor: Embeddings to compare with.
        positive: Embeddings of the same class as their anchors.
        negative: Embeddings of another class.
        margin: How much nearer the positive shall be.
        p: Degree of the norm.
        eps: Added to each coordinate of a difference.
        swap: Whether the negative is compared with the nearer of anchor and positive.

    Use when:
        Triplets are chosen beforehand, as for descriptors of image patches.

    Pitfalls:
        The distance is not squared; FaceNet's is: `triplet_margin_with_distance` has it. Most random triplets
        soon cost nothing: choose hard ones, or let `batch_hard_triplet` find them. `eps` shifts the
        difference, so even equal points are a little apart.

    Sources:
        - Balntas et al. (2016), Learning Local Feature Descriptors with Triplets and Shallow Convolutional
          Neural Networks, https://doi.org/10.5244/C.30.119
    """
    # in float64, as the two distances may be large and nearly the same
    a, b, c = anchor.double(), positive.double(), negative.double()
    to_positive, to_negative = _norm(a - b + eps, p), _norm(a - c + eps, p)
    if swap:
        to_negative = torch.minimum(to_negative, _norm(b - c + eps, p))
    return F.relu(margin + to_positive - to_negative).to(anchor)


def _norm(vectors: Tensor, p: float) -> Tensor:
    """Return the p-norm along the last axis."""
    # the largest coordinate is taken out first: its p-th power may not be a number any more
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    scaled = vectors / scale
    return torch.pairwise_distance(scaled, torch.zeros_like(scaled), p, eps=0.0) * scale.squeeze(-1)


@loss(
    title="Triplet margin with distance",
    tasks=("metric_learning",),
    aliases=("facenet_triplet",),
    work="2 anchor",
    range=(0, None),
    scales=Scales(1, along=("margin",), params={"distance": "euclidean"}),
)
def triplet_margin_with_distance(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    negative: Annotated[Tensor, Prediction("N D")],
    *,
    distance: Distance = "euclidean",
    margin: float = 1.0,
    swap: bool = False,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Triplet margin loss by a distance of choice: squared as in FaceNet, cosine, Manhattan.

    Formula:
        \max(0, m + d(a, p) - d(a, n))

    Args:
        anchor: Embeddings to compare with.
        positive: Embeddings of the same class as their anchors.
        negative: Embeddings of another class.
        distance: How far is measured; `cosine` is one minus the cosine.
        margin: How much nearer the positive shall be, in the unit of the distance.
        swap: Whether the negative is compared with the nearer of anchor and positive.

    Use when:
        Triplets are given and the distance at inference is not the Euclidean one of `triplet_margin`.

    Pitfalls:
        FaceNet squares the distance of normalised embeddings: choose `squared_euclidean`, and
        normalise. The margin has another meaning for each distance: cosine distances end at 2. A zero
        vector is at cosine distance 1 from everything, and gets no gradient from it.

    Sources:
        - Schroff et al. (2015), FaceNet, https://arxiv.org/abs/1503.03832
    """
    # in float64, as the two distances may be large and nearly the same
    a, b, c = anchor.double(), positive.double(), negative.double()
    to_positive, to_negative = _distance(a, b, distance), _distance(a, c, distance)
    if swap:
        to_negative = torch.minimum(to_negative, _distance(b, c, distance))
    return F.relu(margin + to_positive - to_negative).to(anchor)


def _distance(x: Tensor, y: Tensor, kind: Distance) -> Tensor:
    """Return the distance of each vector from its partner."""
    match kind:
        case "euclidean":
            return length(x - y)
        case "squared_euclidean":
            return (x - y).square().sum(-1)
        case "cosine":
            return one_minus_cosine(x, y)
        case "manhattan":
            return (x - y).abs().sum(-1)
