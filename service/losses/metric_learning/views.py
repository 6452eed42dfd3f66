"""Losses on two views of the same things: row i of one belongs to row i of the other, and to no other row."""

from math import radians, tan
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, SizeRange, Unreduced
from service.losses.metric_learning.pairwise import cosines, masked_logsumexp, others
from service.losses.surprise import softplus, surprise
from service.losses.vectors import cosine, unit


@loss(
    title="NT-Xent",
    tasks=("metric_learning", "self_supervised"),
    aliases=("nt_xent", "simclr", "grace"),
    keywords=(
        "contrastive learning",
        "SimCLR",
    ),
    requires=(SizeRange("N", least=2),),
    work=("2N 2N D/512", "4 anchor"),
    range=(0, None),
    scales=0,
)
def ntxent(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    temperature: Annotated[float, Gt(0)] = 0.07,
) -> Annotated[Tensor, Unreduced("2N")]:
    r"""Cross entropy of finding each view's partner among all other views of a batch, as in SimCLR.

    Formula:
        -s_{i\,j(i)} + \log \sum_{k \ne i} e^{s_{ik}},
        \quad s_{ik} = \frac{z_i \cdot z_k}{T \lVert z_i \rVert \lVert z_k \rVert}, \quad z = [a; p]

    Args:
        anchor: Embeddings of the first views.
        positive: Embeddings of the second views, in the same order.
        temperature: Divides the cosines; the smaller, the more the hardest negatives count.

    Use when:
        Pretraining without labels from two augmentations of each sample, in large batches.

    Pitfalls:
        2N losses, those of the anchors first, and each has 2N - 2 negatives, on its own side too;
        `info_nce` has neither. A view is not its own negative. SimCLR's temperature was 0.1 to 0.5,
        by task. A zero vector has no direction: its cosine to all others is 0, and it gets no
        gradient.

    Sources:
        - Chen et al. (2020), A Simple Framework for Contrastive Learning, https://arxiv.org/abs/2002.05709
        - Zhu et al. (2020), Deep Graph Contrastive Representation Learning, https://arxiv.org/abs/2006.04131
    """
    across = cosines(anchor, positive) / temperature
    rivals = across.where(others(anchor), -torch.inf)
    negatives = [
        # three blocks of the symmetric matrix of 2N rows: the fourth is the transpose of `across`
        torch.logaddexp(masked_logsumexp(cosines(view, view) / temperature, others(view)), to_rivals)
        for view, to_rivals in ((anchor, rivals.logsumexp(1)), (positive, rivals.logsumexp(0)))
    ]
    # by the odds against the partner: a sum with it in it has no digits left where it dominates
    return softplus(torch.cat(negatives) - across.diagonal().repeat(2))


@loss(
    title="InfoNCE",
    tasks=("metric_learning", "self_supervised"),
    aliases=("infonce", "multiple_negatives_ranking"),
    keywords=(
        "contrastive learning",
        "CPC",
        "MoCo",
        "noise contrastive estimation",
        "mutual information",
        "sentence embeddings",
        "dense retrieval",
    ),
    requires=(SizeRange("M", least=0),),
    work=("N N D/512", "N M D/512", "3 negative", "2 anchor"),
    compares_samples=True,
    range=(0, None),
    scales=Scales(0, params={"normalize": True}),
)
def info_nce(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    negative: Annotated[Tensor, Prediction("M D")] | None = None,
    *,
    temperature: Annotated[float, Gt(0)] = 0.1,
    normalize: bool = True,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy of finding each anchor's partner among all partners and further negatives.

    Formula:
        -\frac{a_i \cdot p_i}{T} + \log\Big(\sum_j e^{a_i \cdot p_j / T} + \sum_k e^{a_i \cdot n_k / T}\Big)

    Args:
        anchor: Embeddings that look for their partners, queries say.
        positive: Their partners, in the same order; those of other anchors are negatives.
        negative: Further negatives, shared by all anchors.
        temperature: Divides the similarities.
        normalize: Whether embeddings are scaled to length 1 first.

    Use when:
        Training retrieval: queries against documents, with the batch's other documents as negatives.

    Pitfalls:
        One direction only: anchors are never each other's negatives, and partners do not look for
        anchors; `clip` has both directions, `ntxent` all pairs. Two rows with the same partner are
        each other's false negatives. Normalised, a zero vector has no direction: its cosine to all
        others is 0, and it gets no gradient.

    Sources:
        - van den Oord et al. (2018), Representation Learning with Contrastive Predictive Coding,
          https://arxiv.org/abs/1807.03748
        - Henderson et al. (2017), Efficient Natural Language Response Suggestion, https://arxiv.org/abs/1705.00652
    """
    candidates = positive if negative is None else torch.cat([positive, negative])
    similarity = cosines(anchor, candidates) if normalize else anchor @ candidates.mT
    return surprise(similarity / temperature, _own(anchor))


@loss(
    title="CLIP",
    tasks=("metric_learning", "self_supervised"),
    aliases=("symmetric_infonce",),
    keywords=(
        "contrastive learning",
        "image-text",
        "vision-language",
        "multimodal",
        "zero-shot",
    ),
    work=("N N D/512", "2 anchor"),
    compares_samples=True,
    range=(0, None),
    scales=0,
)
def clip(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    temperature: Annotated[float, Gt(0)] = 0.07,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy of matching two modalities, images and texts say, averaged over both directions.

    Formula:
        \frac12 \Big( -2 s_{ii} + \log \sum_j e^{s_{ij}} + \log \sum_j e^{s_{ji}} \Big),
        \quad s_{ij} = \frac{a_i \cdot p_j}{T \lVert a_i \rVert \lVert p_j \rVert}

    Args:
        anchor: Embeddings of one modality.
        positive: Embeddings of the other, in the same order.
        temperature: Divides the cosines; models often learn it.

    Use when:
        Aligning two encoders on pairs, and searching in both directions.

    Pitfalls:
        Each row has the mean of its two cross entropies, not their sum. Duplicates in a batch are
        false negatives. A zero vector has no direction: its cosine to all others is 0, and it gets no
        gradient.

    Sources:
        - Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision,
          https://arxiv.org/abs/2103.00020
    """
    logits = cosines(anchor, positive) / temperature
    return (surprise(logits, _own(anchor)) + surprise(logits, _own(anchor), 0)) / 2


def _own(rows: Tensor) -> Tensor:
    """Return the number of each row, which is also that of its partner."""
    return torch.arange(rows.shape[0], device=rows.device)


@loss(
    title="SigLIP",
    tasks=("metric_learning", "self_supervised"),
    keywords=(
        "contrastive learning",
        "image-text",
        "vision-language",
        "multimodal",
    ),
    work=("N N D/512", "2 anchor", "N N"),
    compares_samples=True,
    range=(0, None),
    scales=0,
)
def siglip(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    scale: Annotated[float, Gt(0)] = 10.0,
    bias: float = -10.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Binary cross entropy of every pair of a batch, match or no match, without a softmax.

    Formula:
        \sum_j \log\big(1 + e^{-y_{ij} (s \cos(a_i, p_j) + b)}\big),
        \quad y_{ij} = \begin{cases} 1 & i = j \\ -1 & i \ne j \end{cases}

    Args:
        anchor: Embeddings of one modality.
        positive: Embeddings of the other, in the same order.
        scale: Factor of the cosines; models often learn it.
        bias: Added to them, negative as most pairs do not match; models often learn it.

    Use when:
        Aligning two encoders in batches so large, or so scattered, that a softmax over them is a burden.

    Pitfalls:
        Each row sums over the batch, as in the paper: the mean grows with the batch size. A zero
        vector has no direction: its cosine to all others is 0, and it gets no gradient.

    Sources:
        - Zhai et al. (2023), Sigmoid Loss for Language Image Pre-Training, https://arxiv.org/abs/2303.15343
    """
    logits = scale * cosines(anchor, positive) + bias
    return softplus(torch.where(others(anchor), logits, -logits)).sum(-1)


@loss(
    title="N-pairs",
    tasks=("metric_learning",),
    aliases=("npair",),
    keywords=(
        "image retrieval",
        "embeddings",
    ),
    work="N N D/512",
    compares_samples=True,
    range=(0, None),
)
def n_pairs(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    l2_reg: Annotated[float, Ge(0)] = 0.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Softmax of an anchor's inner products with one positive and the N - 1 of other classes.

    Formula:
        -a_i \cdot p_i + \log \sum_j e^{a_i \cdot p_j}
        + \tfrac{\lambda}{2} (a_i \cdot a_i + p_i \cdot p_i)

    Args:
        anchor: One embedding of each class.
        positive: Another embedding of each class, in the same order.
        l2_reg: Weight of the squared lengths.

    Use when:
        A batch is built of one pair from each of N classes.

    Pitfalls:
        Embeddings are not normalised: without `l2_reg` their lengths grow without end. Two pairs of one class
        are each other's false negatives.

    Sources:
        - Sohn (2016), Improved Deep Metric Learning with Multi-class N-pair Loss Objective,
          https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective
    """
    squares = anchor.square().sum(-1) + positive.square().sum(-1)
    return surprise(anchor @ positive.mT, _own(anchor)) + l2_reg * squares / 2


@loss(
    title="Angular",
    tasks=("metric_learning",),
    requires=(SizeRange("N", least=2),),
    work=("N N D/512", "2 anchor"),
    compares_samples=True,
    range=(0, None),
    scales=0,
)
def angular(
    anchor: Annotated[Tensor, Prediction("N D")],
    positive: Annotated[Tensor, Prediction("N D")],
    *,
    alpha: Annotated[float, Gt(0), Lt(90)] = 40.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Bound on the angle at which a negative sees an anchor and its positive: no scale to tune.

    Formula:
        \log\Big(1 + \sum_{j \ne i} e^{4 t\, (a_i + p_i) \cdot p_j - 2 (1 + t)\, a_i \cdot p_i}\Big),
        \quad t = \tan^2 \alpha

    Args:
        anchor: One embedding of each class.
        positive: Another embedding of each class, in the same order.
        alpha: Upper bound of the angle at the negative, in degrees.

    Use when:
        Distances within classes vary so much that no single margin suits them.

    Pitfalls:
        The angle is in degrees, and its squared tangent runs away near 90: the paper used 36 to 55.
        Embeddings are normalised here. A zero vector has no direction: its cosine to all others is 0,
        and it gets no gradient.

    Sources:
        - Wang et al. (2017), Deep Metric Learning with Angular Loss, https://arxiv.org/abs/1708.01682
    """
    slope = tan(radians(alpha)) ** 2
    partners = unit(positive)
    towards = 4 * slope * (unit(anchor) + partners) @ partners.mT
    return softplus(masked_logsumexp(towards, others(anchor)) - 2 * (1 + slope) * cosine(anchor, positive))
