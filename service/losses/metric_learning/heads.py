"""Losses of classification by angle: embeddings against one direction a class, the own class handicapped."""

from math import cos, pi, sin
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.metric_learning.pairwise import cosines
from service.losses.surprise import surprise
from service.losses.vectors import length, unit


@loss(
    title="Normalized softmax",
    tasks=("metric_learning",),
    aliases=("norm_softmax",),
    work=("N C D/512", "2 prototypes", "2 embeddings"),
    range=(0, None),
    scales=0,
)
def normalized_softmax(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    temperature: Annotated[float, Gt(0)] = 0.05,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy of cosines: a classifier whose last layer doubles as an embedding for retrieval.

    Formula:
        -\frac{c_y}{T} + \log \sum_k e^{c_k / T},
        \quad c_k = \frac{x \cdot w_k}{\lVert x \rVert \lVert w_k \rVert}

    Args:
        embeddings: One embedding a row.
        prototypes: One direction a class.
        targets: Index of each row's class.
        temperature: Divides the cosines.

    Use when:
        A strong and simple baseline for retrieval is wanted, where classes are known in training.

    Pitfalls:
        Prototypes are normalised too, so their lengths mean nothing. A high temperature keeps the
        probability of the right class far below 1, as cosines end at 1. A zero vector has no
        direction: its cosine to all others is 0, and it gets no gradient.

    Sources:
        - Zhai and Wu (2019), Classification is a Strong Baseline for Deep Metric Learning,
          https://arxiv.org/abs/1811.12649
    """
    return surprise(cosines(embeddings, prototypes) / temperature, targets)


@loss(
    title="ArcFace",
    tasks=("metric_learning",),
    aliases=("additive_angular_margin",),
    work=("N C D/512", "3 embeddings", "2 prototypes"),
    range=(0, None),
    scales=0,
)
def arcface(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    margin: Annotated[float, Ge(0), Le(pi / 2)] = 0.5,
    scale: Annotated[float, Gt(0)] = 64.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy of scaled cosines, the angle to the right class widened by a margin.

    Formula:
        -s\, \tilde c_y + \log\Big( e^{s \tilde c_y} + \sum_{k \ne y} e^{s \cos \theta_k} \Big),
        \quad \tilde c_y = \begin{cases} \cos(\theta_y + m) & \theta_y \le \pi - m \\
        \cos \theta_y - m \sin m & \theta_y > \pi - m \end{cases}

    Args:
        embeddings: One embedding a row.
        prototypes: One direction a class.
        targets: Index of each row's class.
        margin: Angle added to that of the right class, in radians.
        scale: Factor of the cosines.

    Use when:
        There are many classes of few samples to distinguish by angle, as with faces.

    Pitfalls:
        The margin is in radians; where a library takes degrees, 28.6 of them are 0.5. Past the angle
        pi - m the cosine would rise again, so it continues as a line. Training from scratch may not
        start with the full margin. A zero vector has no direction: its cosine to all others is 0, and
        it gets no gradient.

    Sources:
        - Deng et al. (2019), ArcFace, https://arxiv.org/abs/1801.07698
    """
    directions, centres = unit(embeddings), unit(prototypes)
    widened = _widened(embeddings, prototypes[targets], margin)
    return surprise(scale * _with_own(directions @ centres.mT, widened, targets), targets)


@loss(
    title="Sub-center ArcFace",
    tasks=("metric_learning",),
    work=("N C K D/512", "3 embeddings", "2 prototypes"),
    range=(0, None),
    scales=0,
)
def sub_center_arcface(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C K D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    margin: Annotated[float, Ge(0), Le(pi / 2)] = 0.5,
    scale: Annotated[float, Gt(0)] = 64.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""ArcFace with several directions a class, the nearest counting: noisy labels get a separate one.

    Formula:
        -s\, \tilde c_y + \log\Big( e^{s \tilde c_y} + \sum_{k \ne y} e^{s \cos \theta_k} \Big),
        \quad \theta_k = \min_j \angle(x, w_{kj})

    Args:
        embeddings: One embedding a row.
        prototypes: A few directions for each class.
        targets: Index of each row's class.
        margin: Angle added to that of the right class, in radians, as in `arcface`.
        scale: Factor of the cosines.

    Use when:
        Labels of a large set are noisy, or classes have several modes.

    Pitfalls:
        With many sub-centres a clean class is torn apart: 3 is usual, and the lesser ones are dropped
        after training. A zero vector has no direction: its cosine to all others is 0, and it gets no
        gradient.

    Sources:
        - Deng et al. (2020), Sub-center ArcFace, https://doi.org/10.1007/978-3-030-58621-8_43
    """
    directions, centres = unit(embeddings), unit(prototypes)
    similarity = torch.einsum("nd,ckd->nck", directions, centres)
    # in float64, as is the angle to it; of all classes, as all centres of each row's own are many more numbers
    close = torch.einsum(
        "nd,ckd->nck", unit(embeddings.detach().double()), unit(prototypes.detach().double())
    )
    nearest = close.take_along_dim(targets[:, None, None], 1).squeeze(1).argmax(-1)
    widened = _widened(embeddings, prototypes[targets, nearest], margin)
    return surprise(scale * _with_own(similarity.amax(-1), widened, targets), targets)


def _widened(embeddings: Tensor, centres: Tensor, margin: float) -> Tensor:
    """Return the cosine of the angle to each one's centre plus a margin, past pi the line that goes on."""
    cosine, sine = _angle(embeddings, centres)
    turned = cosine * cos(margin) - sine * sin(margin)
    return torch.where(cosine >= -cos(margin), turned, cosine - margin * sin(margin)).to(embeddings)


def _angle(embeddings: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the angle between each embedding and its centre.

    In float64: directions that are 1e-3 apart leave their chord 4 digits in float32.
    """
    directions, centres = unit(embeddings.double()), unit(centres.double())
    cosine = (directions * centres).sum(-1)
    chord = length(directions - centres)
    # what rounding leaves of an angle of 0 points anywhere: its slope is 0, as that of any norm at 0
    chord = torch.where(chord > 16 * torch.finfo(chord.dtype).eps, chord, 0.0)
    # near 0 and pi the root has few digits and a slope without bound; half the product of the chords to the
    # centre and to its opposite has neither fault, but is the sine of unit vectors only: not of a zero vector
    aligned = cosine.abs() > 0.5
    root = torch.where(aligned, 1.0, 1 - cosine.square()).sqrt()
    return cosine, torch.where(aligned, chord * length(directions + centres) / 2, root)


@loss(
    title="CosFace",
    tasks=("metric_learning",),
    aliases=("am_softmax", "large_margin_cosine"),
    work=("N C D/512", "2 prototypes", "2 embeddings"),
    range=(0, None),
    scales=0,
)
def cosface(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    margin: float = 0.35,
    scale: Annotated[float, Gt(0)] = 64.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy of scaled cosines, that of the right class lowered by a margin.

    Formula:
        -s (c_y - m) + \log\Big( e^{s (c_y - m)} + \sum_{k \ne y} e^{s c_k} \Big),
        \quad c_k = \frac{x \cdot w_k}{\lVert x \rVert \lVert w_k \rVert}

    Args:
        embeddings: One embedding a row.
        prototypes: One direction a class.
        targets: Index of each row's class.
        margin: Taken from the cosine of the right class.
        scale: Factor of the cosines.

    Use when:
        As for `arcface`; steadier to train, with a margin in the cosine instead of the angle.

    Pitfalls:
        The margin is a cosine, not an angle: the values for ArcFace do not carry over. A zero vector
        has no direction: its cosine to all others is 0, and it gets no gradient.

    Sources:
        - Wang et al. (2018), CosFace, https://arxiv.org/abs/1801.09414
        - Wang et al. (2018), Additive Margin Softmax for Face Verification, https://arxiv.org/abs/1801.05599
    """
    similarity = cosines(embeddings, prototypes)
    return surprise(scale * _with_own(similarity, similarity - margin, targets), targets)


@loss(
    title="SphereFace",
    tasks=("metric_learning",),
    aliases=("a_softmax",),
    work=("N C D/512", "3 embeddings", "2 targets", "2 prototypes"),
    range=(0, None),
    scales=Scales(0, ("prototypes",)),
)
def sphereface(
    embeddings: Annotated[Tensor, Prediction("N D")],
    prototypes: Annotated[Tensor, Prediction("C D")],
    targets: Annotated[Tensor, Target("N", ClassIndex("C"))],
    *,
    margin: Annotated[int, Ge(1)] = 4,
    scale: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Cross entropy of inner products, the angle to the right class multiplied by a margin.

    Formula:
        -s \lVert x \rVert \psi(\theta_y)
        + \log\Big( e^{s \lVert x \rVert \psi(\theta_y)}
        + \sum_{k \ne y} e^{s \lVert x \rVert \cos \theta_k} \Big),
        \quad \psi(\theta) = (-1)^j \cos(m \theta) - 2 j, \quad j = \lfloor m \theta / \pi \rfloor

    Args:
        embeddings: One embedding a row; its length stays in the logits.
        prototypes: One direction a class.
        targets: Index of each row's class.
        margin: Factor of the angle to the right class.
        scale: Further factor of the logits.

    Use when:
        Results of the paper are to be reproduced; `arcface` and `cosface` came after it and train more
        easily.

    Pitfalls:
        With the full margin from the start it hardly trains: the paper anneals from plain softmax. As
        lengths are kept, a model can lower the loss by longer embeddings alone. A zero vector has no
        direction: its cosine to all others is 0, and it gets no gradient.

    Sources:
        - Liu et al. (2017), SphereFace, https://arxiv.org/abs/1704.08063
    """
    directions, centres = unit(embeddings), unit(prototypes)
    cosine, sine = _angle(embeddings, prototypes[targets])
    angle = margin * torch.atan2(sine, cosine)
    half_turns = (angle / pi).floor().detach()
    # (-1)^j cos(m theta) is the cosine of the angle less j half turns
    multiplied = (torch.cos(angle - pi * half_turns) - 2 * half_turns).to(embeddings)
    similarity = _with_own(directions @ centres.mT, multiplied, targets)
    return surprise(scale * length(embeddings)[:, None] * similarity, targets)


def _with_own(similarity: Tensor, own: Tensor, targets: Tensor) -> Tensor:
    """Return the similarities with those to the own classes replaced."""
    classes = torch.arange(similarity.shape[1], device=similarity.device)
    own = own if own.shape == similarity.shape else own[:, None]
    return torch.where(targets[:, None] == classes, own, similarity)
