"""Losses on a batch of embeddings with labels: each row in turn is the anchor of all the others."""

from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Integers
from service.catalogue.spec import Divisor, Example, Prediction, Scales, Target, Unreduced
from service.losses.metric_learning.pairwise import cosines, distances, masked_logsumexp, others, relations
from service.losses.surprise import softplus
from service.losses.vectors import length, unit

SIX_ROWS = Example(sizes={"N": 6})
"""Three labels, so that a row has both positives and negatives."""


class AnchorLoss(NamedTuple):
    """A loss per anchor, and its divisor."""

    loss: Annotated[Tensor, Unreduced("N")]
    divisor: Annotated[Tensor, Divisor("N")]


@loss(
    title="Batch-hard triplet",
    tasks=("metric_learning",),
    aliases=("triplet_hard",),
    keywords=(
        "person re-identification",
        "ReID",
        "hard negative mining",
        "image retrieval",
    ),
    example=SIX_ROWS,
    work="N N D/64",
    compares_samples=True,
    range=(0, None),
    scales=Scales(1, along=("margin",), params={"soft": False}),
)
def batch_hard_triplet(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    margin: float = 1.0,
    soft: bool = False,
) -> AnchorLoss:
    r"""Triplet loss of each anchor with its farthest positive and its nearest negative in the batch.

    Formula:
        \max(0, v_i + m) \text{ or softly } \log(1 + e^{v_i}),
        \quad v_i = \max_{p \in P_i} d_{ip} - \min_{n \in Q_i} d_{in}

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        margin: How much nearer the farthest positive shall be than the nearest negative.
        soft: Whether a softplus without a margin takes the place of the hinge.

    Use when:
        A batch holds a few samples of each of many classes, as in the re-identification of persons.

    Pitfalls:
        Mislabelled samples are the hardest of all, and this loss sees only those. It may collapse to
        all embeddings equal, where it stays at the margin: soften, or start with `batch_all_triplet`.
        Embeddings are not normalised. Anchors without a positive or without a negative are excluded from the mean.

    Sources:
        - Hermans et al. (2017), In Defense of the Triplet Loss for Person Re-Identification,
          https://arxiv.org/abs/1703.07737
    """
    positives, negatives = relations(targets)
    with torch.no_grad():
        distance = distances(embeddings, embeddings)
        farthest, nearest = _highest(distance, positives), _highest(-distance, negatives)
    # measured again for the chosen pairs alone: slopes for all pairs would cost as much as the rest
    violation = length(embeddings - embeddings[farthest]) - length(embeddings - embeddings[nearest])
    complete = positives.any(-1) & negatives.any(-1)
    cost = softplus(violation) if soft else F.relu(violation + margin)
    return AnchorLoss(torch.where(complete, cost, 0.0), complete.to(embeddings))


def _highest(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the column of each row's highest score where ``mask`` is true."""
    # one more column, never the first to be highest, because without columns there is no maximum
    return F.pad(torch.where(mask, scores, -torch.inf), (0, 1), value=-torch.inf).argmax(-1)


@loss(
    title="Batch-all triplet",
    tasks=("metric_learning",),
    aliases=("triplet_all",),
    example=SIX_ROWS,
    work=("N N D/64", "2 embeddings", "2 N N"),
    compares_samples=True,
    range=(0, None),
    scales=Scales(1, along=("margin",)),
)
def batch_all_triplet(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    margin: float = 1.0,
) -> AnchorLoss:
    r"""Triplet loss over every valid triplet of a batch, averaged over those that violate the margin.

    Formula:
        \sum_{p \in P_i} \sum_{n \in Q_i} \max(0, d_{ip} - d_{in} + m)

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        margin: How much nearer each positive shall be than each negative.

    Use when:
        Batches are labelled and `batch_hard_triplet` is unstable, because labels are noisy or training
        begins.

    Pitfalls:
        The mean divides by the number of triplets that cost something, so it need not fall while their number
        does; watch the sum too. Embeddings are not normalised.

    Sources:
        - Hermans et al. (2017), In Defense of the Triplet Loss for Person Re-Identification,
          https://arxiv.org/abs/1703.07737
    """
    positives, negatives = relations(targets)
    distance = distances(embeddings, embeddings)
    with torch.no_grad():
        times, count = _violations(distance, margin, positives, negatives)
    # of violations none is negative, but their distances are summed apart
    return AnchorLoss(((times * distance).sum(-1) + margin * count).clamp(min=0), count)


def _violations(
    distance: Tensor, margin: float, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how often each distance enters an anchor's sum, negatives below 0, and how many terms that has.

    Sorted by distance the negatives that a positive violates come first, so no triplet is written down.
    """
    ascending, order = torch.where(negatives, distance, torch.inf).sort(-1)
    violated = torch.searchsorted(ascending, torch.where(positives, distance + margin, -torch.inf))
    # the negative of rank r is violated by the positives that violate more than r negatives
    by_number = torch.zeros_like(distance).scatter_add(
        -1, violated.clamp(max=distance.shape[-1] - 1), positives.to(distance)
    )
    violating = positives.sum(-1, keepdim=True) - by_number.cumsum(-1)
    times = violated - torch.zeros_like(distance).scatter(-1, order, violating)
    return times, violated.sum(-1).to(distance)


@loss(
    title="Supervised contrastive",
    tasks=("metric_learning",),
    aliases=("supervised_contrastive",),
    keywords=(
        "supervised contrastive learning",
        "embeddings",
    ),
    example=SIX_ROWS,
    work=("N N D/512", "2 embeddings"),
    compares_samples=True,
    range=(0, None),
    scales=0,
)
def supcon(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    temperature: Annotated[float, Gt(0)] = 0.1,
) -> AnchorLoss:
    r"""Cross entropy of recognising an anchor's class mates among all other rows of a batch.

    Formula:
        -\frac{1}{|P_i|} \sum_{p \in P_i} \Big( s_{ip} - \log \sum_{k \ne i} e^{s_{ik}} \Big),
        \quad s_{ik} = \frac{z_i \cdot z_k}{T \lVert z_i \rVert \lVert z_k \rVert}

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        temperature: Divides the cosines; the smaller, the more the nearest rows count.

    Use when:
        Labels are there and an embedding is wanted that transfers better than a classifier's.

    Pitfalls:
        The mean over the positives stands outside the logarithm, the better of the paper's two forms.
        Two views of each sample are stacked by you, with the labels twice. Rows without a positive
        leave the mean. A zero vector has no direction: its cosine to all others is 0, and it gets no
        gradient.

    Sources:
        - Khosla et al. (2020), Supervised Contrastive Learning, https://arxiv.org/abs/2004.11362
    """
    similarity = cosines(embeddings, embeddings) / temperature
    positives, _ = relations(targets)
    count = positives.sum(-1)
    attraction = torch.where(positives, similarity, 0.0).sum(-1) / count.clamp(min=1)
    total = masked_logsumexp(similarity, others(targets))
    # the positives are among all others, so that less than 0 is rounding
    cost = (total - attraction).clamp(min=0)
    return AnchorLoss(torch.where(count > 0, cost, 0.0), (count > 0).to(similarity))


@loss(
    title="Multi-similarity",
    tasks=("metric_learning",),
    aliases=("ms",),
    keywords=(
        "image retrieval",
        "embeddings",
    ),
    example=SIX_ROWS,
    work=("N N D/512", "2 embeddings"),
    compares_samples=True,
    range=(0, None),
    scales=0,
)
def multi_similarity(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    alpha: Annotated[float, Gt(0)] = 2.0,
    beta: Annotated[float, Gt(0)] = 50.0,
    base: float = 0.5,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Soft sums of positives less similar, and negatives more similar, than a base similarity.

    Formula:
        \frac{1}{\alpha} \log\Big(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Big)
        + \frac{1}{\beta} \log\Big(1 + \sum_{n \in Q_i} e^{\beta (s_{in} - \lambda)}\Big),
        \quad s = \cos

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        alpha: How sharply the least similar positives stand out.
        beta: How sharply the most similar negatives stand out.
        base: Cosine that parts similar from dissimilar.

    Use when:
        Retrieval of fine-grained classes, weighing pairs by how informative they are.

    Pitfalls:
        The paper drops easy pairs before the sums; here all pairs enter. Rows without a positive
        still count in the mean, for their negatives cost something. A zero vector has no direction:
        its cosine to all others is 0, and it gets no gradient.

    Sources:
        - Wang et al. (2019), Multi-Similarity Loss with General Pair Weighting, https://arxiv.org/abs/1904.06627
    """
    excess = cosines(embeddings, embeddings) - base
    positives, negatives = relations(targets)
    attraction = softplus(masked_logsumexp(-alpha * excess, positives)) / alpha
    repulsion = softplus(masked_logsumexp(beta * excess, negatives)) / beta
    return attraction + repulsion


@loss(
    title="Circle",
    tasks=("metric_learning",),
    exact_gradient=False,
    example=SIX_ROWS,
    work=("N N D/512", "2 embeddings", "N N"),
    compares_samples=True,
    range=(0, None),
    scales=0,
)
def circle(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    margin: float = 0.4,
    gamma: float = 80.0,
) -> AnchorLoss:
    r"""Similarities pulled to their optimum, each at its own pace: the farther off, the harder.

    Formula:
        \log\Big(1 + \sum_{p \in P_i} e^{-\gamma\, [1 + m - s_{ip}]_+ (s_{ip} - 1 + m)}
        \sum_{n \in Q_i} e^{\gamma\, [s_{in} + m]_+ (s_{in} - m)}\Big), \quad s = \cos

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        margin: How far from the optima 1 and 0 the similarities may stay.
        gamma: Scale of the similarities.

    Use when:
        Positives and negatives of a batch are unequally far from where they should be.

    Pitfalls:
        The weights in brackets are constants to the gradient, so it is not the derivative of the
        value. Keras differentiates them, and takes distances: other gradients. Rows without a
        positive or without a negative are excluded from the mean. A zero vector has no direction: its cosine to
        all others is 0, and it gets no gradient.

    Sources:
        - Sun et al. (2020), Circle Loss, https://arxiv.org/abs/2002.10857
    """
    similarity = cosines(embeddings, embeddings)
    positives, negatives = relations(targets)
    pull = F.relu(1 + margin - similarity).detach()
    push = F.relu(similarity + margin).detach()
    attraction = masked_logsumexp(-gamma * pull * (similarity - 1 + margin), positives)
    repulsion = masked_logsumexp(gamma * push * (similarity - margin), negatives)
    complete = positives.any(-1) & negatives.any(-1)
    return AnchorLoss(softplus(attraction + repulsion), complete.to(similarity))


@loss(
    title="Neighbourhood components analysis",
    tasks=("metric_learning",),
    example=SIX_ROWS,
    work=("N N D/64", "2 embeddings", "N N"),
    compares_samples=True,
    range=(0, None),
    scales=Scales(0, params={"normalize": True}),
)
def nca(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    softmax_scale: float = 1.0,
    normalize: bool = True,
) -> AnchorLoss:
    r"""Negative log-probability that a random, likely near neighbour has the anchor's label.

    Formula:
        -\log \frac{\sum_{p \in P_i} e^{-c\, d_{ip}^2}}{\sum_{k \ne i} e^{-c\, d_{ik}^2}}

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        softmax_scale: Factor of the squared distances; the larger, the fewer neighbours count.
        normalize: Whether embeddings are scaled to length 1 first.

    Use when:
        The embedding will serve a nearest-neighbour classifier.

    Pitfalls:
        On normalised embeddings squared distances end at 4, so a scale of 1 can never make a class
        certain: raise it. Rows without a positive are excluded from the mean. A zero vector stays where it is
        when normalised, and gets no gradient.

    Sources:
        - Goldberger et al. (2005), Neighbourhood Components Analysis,
          https://papers.nips.cc/paper/2566-neighbourhood-components-analysis
    """
    points = unit(embeddings) if normalize else embeddings
    logits = -softmax_scale * distances(points, points).square()
    positives, negatives = relations(targets)
    attraction = masked_logsumexp(logits, positives, empty=0.0)
    # by the odds against the positives: a sum with them in it has no digits left where they dominate
    cost = softplus(masked_logsumexp(logits - attraction[:, None], negatives))
    matched = positives.any(-1)
    return AnchorLoss(torch.where(matched, cost, 0.0), matched.to(points))


@loss(
    title="Lifted structure",
    tasks=("metric_learning",),
    aliases=("generalized_lifted_structure",),
    example=SIX_ROWS,
    work=("N N D/64", "2 embeddings", "N N"),
    compares_samples=True,
    range=(0, None),
    scales=Scales(0, params={"normalize": True}),
)
def lifted_structure(
    embeddings: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    neg_margin: float = 1.0,
    pos_margin: float = 0.0,
    normalize: bool = True,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Smooth maximum of an anchor's distances to positives plus that of its negatives' nearness.

    Formula:
        \max\Big(0, \log \sum_{p \in P_i} e^{d_{ip} - m_+} + \log \sum_{n \in Q_i} e^{m_- - d_{in}}\Big)

    Args:
        embeddings: One embedding a row.
        targets: Label of each row, any integers.
        neg_margin: Distance that negatives shall keep.
        pos_margin: Distance that positives may keep.
        normalize: Whether embeddings are scaled to length 1 first.

    Use when:
        All pairs of a batch shall be used at once, and softly.

    Pitfalls:
        The generalised form of Hermans et al., with all positives of an anchor, not the pairwise
        first one of Song et al. The sums grow with the batch, and the margins do not: a batch size is
        part of the setting. Where positives or negatives are missing their logarithm counts 0, and
        the row stays in the mean. A zero vector stays where it is when normalised, and gets no
        gradient.

    Sources:
        - Hermans et al. (2017), In Defense of the Triplet Loss for Person Re-Identification,
          https://arxiv.org/abs/1703.07737
        - Song et al. (2016), Deep Metric Learning via Lifted Structured Feature Embedding,
          https://arxiv.org/abs/1511.06452
    """
    points = unit(embeddings) if normalize else embeddings
    distance = distances(points, points)
    positives, negatives = relations(targets)
    attraction = masked_logsumexp(distance - pos_margin, positives, empty=0.0)
    repulsion = masked_logsumexp(neg_margin - distance, negatives, empty=0.0)
    return F.relu(attraction + repulsion)
