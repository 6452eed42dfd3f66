"""Losses by distance to learnt points that stand for the classes: centres and proxies."""

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Prediction, Target, Unreduced
from service.losses.metric_learning.pairwise import cosines, distances, masked_logsumexp
from service.losses.surprise import softplus, surprise
from service.losses.vectors import unit


@loss(
    title="Center",
    tasks=("metric_learning",),
    keywords=(
        "face recognition",
        "compact clusters",
    ),
    range=(0, None),
    scales=2,
)
def center(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Half the squared distance of an embedding from its class's centre: compact classes.

    Formula:
        \tfrac12 \lVert x - c_y \rVert_2^2

    Args:
        embeddings: One embedding a row.
        prototypes: The centre of each class.
        targets: Index of each row's class.

    Use when:
        Beside a softmax loss, whose classes are separable but not compact.

    Pitfalls:
        Alone it has a trivial optimum, all embeddings and centres at one point. The gradient of the centres
        is the plain derivative; the paper's averaged update of them is the optimiser's affair.

    Sources:
        - Wen et al. (2016), A Discriminative Feature Learning Approach for Deep Face Recognition,
          https://doi.org/10.1007/978-3-319-46478-7_31
    """
    return (embeddings - prototypes[targets]).square().sum(-1) / 2


@loss(
    title="Proxy-NCA",
    tasks=("metric_learning",),
    aliases=("proxy_nca_pp",),
    keywords=(
        "image retrieval",
        "few-shot",
    ),
    work=("N C D/64", "2 prototypes", "2 embeddings"),
    range=(0, None),
    scales=0,
)
def proxy_nca(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    softmax_scale: float = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Softmax over squared distances to one proxy a class: neighbourhood analysis without sampling.

    Formula:
        -\log \frac{e^{-c\, d_y^2}}{\sum_k e^{-c\, d_k^2}},
        \quad d_k = \Big\lVert \frac{x}{\lVert x \rVert} - \frac{w_k}{\lVert w_k \rVert} \Big\rVert_2

    Args:
        embeddings: One embedding a row.
        prototypes: One proxy a class.
        targets: Index of each row's class.
        softmax_scale: Factor of the squared distances.

    Use when:
        Pairs and triplets converge too slowly: each row meets every class at every step.

    Pitfalls:
        The original leaves the own proxy out of the denominator, and may go negative; this is the
        softmax form of ProxyNCA++. Its scale was 9 (a temperature of 1/9): 1 is soft. A zero vector
        stays where it is when normalised, and gets no gradient.

    Sources:
        - Movshovitz-Attias et al. (2017), No Fuss Distance Metric Learning using Proxies,
          https://arxiv.org/abs/1703.07464
        - Teh et al. (2020), ProxyNCA++, https://arxiv.org/abs/2004.01113
    """
    logits = -softmax_scale * distances(unit(embeddings), unit(prototypes)).square()
    return surprise(logits, targets)


@loss(
    title="Proxy-Anchor",
    tasks=("metric_learning",),
    work=("N C D/512", "2 prototypes", "2 embeddings"),
    range=(0, None),
    scales=0,
)
def proxy_anchor(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    margin: float = 0.1,
    alpha: float = 32.0,
) -> Annotated[Tensor, Unreduced("")]:
    r"""Each class's proxy as the anchor of a whole batch: fast as proxies, with relations between data.

    Formula:
        \frac{1}{|W^+|} \sum_{w \in W^+} \log\Big(1 + \sum_{x: y = w} e^{-\alpha (s_{xw} - m)}\Big)
        + \frac{1}{C} \sum_w \log\Big(1 + \sum_{x: y \ne w} e^{\alpha (s_{xw} + m)}\Big), \quad s = \cos

    Args:
        embeddings: One embedding a row.
        prototypes: One proxy a class.
        targets: Index of each row's class.
        margin: How far beyond 0 the cosines shall be on their side.
        alpha: Factor of the cosines.

    Use when:
        Many classes, and a batch whose samples should be weighed against each other.

    Pitfalls:
        One number a batch: it does not split into rows. Attraction is averaged over the proxies that
        have a sample in the batch, repulsion over all. Proxies want a larger learning rate, 100 times
        in the paper's code. A zero vector has no direction: its cosine to all others is 0, and it
        gets no gradient.

    Sources:
        - Kim et al. (2020), Proxy Anchor Loss for Deep Metric Learning, https://arxiv.org/abs/2003.13911
    """
    similarity = cosines(prototypes, embeddings)
    own = targets == torch.arange(prototypes.shape[0], device=targets.device)[:, None]
    attraction = softplus(masked_logsumexp(-alpha * (similarity - margin), own))
    repulsion = softplus(masked_logsumexp(alpha * (similarity + margin), ~own))
    return attraction.sum() / own.any(-1).sum() + repulsion.mean()


@loss(
    title="SoftTriple",
    tasks=("metric_learning",),
    work=("N C K D/512", "2 prototypes", "2 embeddings"),
    range=(0, None),
    scales=0,
)
def soft_triple(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C K D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    la: float = 20.0,
    gamma: Annotated[float, Gt(0)] = 0.1,
    margin: float = 0.01,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Softmax over classes of several centres each, a softly chosen one counting: triplets unsampled.

    Formula:
        -\lambda (S_y - \delta) + \log\Big( e^{\lambda (S_y - \delta)} + \sum_{c \ne y} e^{\lambda S_c} \Big),
        \quad S_c = \sum_k \frac{e^{s_{ck} / \gamma}}{\sum_j e^{s_{cj} / \gamma}}\, s_{ck}, \quad s = \cos

    Args:
        embeddings: One embedding a row.
        prototypes: A few centres for each class.
        targets: Index of each row's class.
        la: Factor of the similarities to classes.
        gamma: Temperature of the choice among a class's centres.
        margin: Taken from the similarity to the right class.

    Use when:
        Classes have several modes, and triplets are not to be sampled.

    Pitfalls:
        The paper adds a regulariser that merges superfluous centres; it is not part of this value. A
        zero vector has no direction: its cosine to all others is 0, and it gets no gradient.

    Sources:
        - Qian et al. (2019), SoftTriple Loss, https://arxiv.org/abs/1909.05235
    """
    similarity = torch.einsum("nd,ckd->nck", unit(embeddings), unit(prototypes))
    to_class = ((similarity / gamma).softmax(-1) * similarity).sum(-1)
    own = targets[:, None] == torch.arange(prototypes.shape[0], device=targets.device)
    return surprise(la * torch.where(own, to_class - margin, to_class), targets)
