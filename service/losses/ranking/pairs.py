"""Losses of two scores, of which one should be the higher."""

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Between, OneOf
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.surprise import binary_surprise, softplus


@loss(
    title="Margin ranking",
    tasks=("ranking",),
    aliases=("pairwise_margin",),
    keywords=(
        "learning to rank",
        "pairwise preferences",
    ),
    range=(0, None),
    scales=Scales(1, ("scores_a", "scores_b"), along=("margin",)),
)
def margin_ranking(
    scores_a: Annotated[Tensor, Prediction("...")],
    scores_b: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", OneOf((-1, 1), "-1 where the second is to win, not 0"))],
    *,
    margin: float = 0.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Hinge on the difference of two scores: the right one must lead by a margin.

    Formula:
        \max(0, -y\,(\hat a - \hat b) + m)

    Args:
        scores_a: Score of the first of each pair.
        scores_b: Score of the second of each pair.
        targets: 1 where the first is to score higher, -1 where the second is.
        margin: Lead from which a pair costs nothing, in the unit of the scores.

    Use when:
        You know of ordered pairs who wins, and pairs that are clearly right should be left alone.

    Pitfalls:
        With the default margin of 0 equal scores cost nothing and the gradient is gone as soon as a pair is
        in order: a model that scores everything alike has loss 0. Set a margin. Exactly at the margin the
        gradient is 0, where torch passes the full one.

    Sources:
        - Joachims (2002), Optimizing Search Engines using Clickthrough Data, https://doi.org/10.1145/775047.775067
    """
    return F.relu(margin - targets * (scores_a - scores_b))


@loss(title="RankNet, pairs", tasks=("ranking",), range=(0, None))
def ranknet_pairwise(
    scores_a: Annotated[Tensor, Prediction("...")],
    scores_b: Annotated[Tensor, Prediction("...")],
    targets: Annotated[Tensor, Target("...", Between(0, 1))],
    *,
    sigma: Annotated[float, Gt(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Cross entropy of the probability that one item beats another: graded preferences and ties.

    Formula:
        -y \log \varsigma(o) - (1 - y) \log \varsigma(-o), \quad o = \sigma\,(\hat a - \hat b)

    Args:
        scores_a: Score of the first of each pair.
        scores_b: Score of the second of each pair.
        targets: Probability that the first is preferred: 1, 0, or 0.5 for a tie.
        sigma: Steepness of the probability in the difference of the scores.

    Use when:
        People compared two things, perhaps not unanimously: the share of votes is the target.

    Pitfalls:
        Targets are probabilities, not signs: 0 means that the second wins, -1 is refused. A tie is 0.5, and
        then the loss of a perfect model is log 2, not 0.

    Sources:
        - Burges et al. (2005), Learning to Rank using Gradient Descent, https://doi.org/10.1145/1102351.1102363
    """
    return binary_surprise(sigma * (scores_a - scores_b), targets, 1 - targets)


@loss(
    title="Bayesian personalised ranking",
    tasks=("ranking",),
    aliases=("bradley_terry", "reward_model"),
    keywords=(
        "recommender system",
        "recommendation",
        "collaborative filtering",
        "implicit feedback",
        "matrix factorization",
    ),
    range=(0, None),
)
def bpr(
    scores_a: Annotated[Tensor, Prediction("...")], scores_b: Annotated[Tensor, Prediction("...")]
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Negative log-probability that the preferred item wins: implicit feedback, reward models.

    Formula:
        -\log \varsigma(\hat a - \hat b)

    Args:
        scores_a: Score of the preferred item of each pair.
        scores_b: Score of the other item: not clicked, or the rejected answer.

    Use when:
        You recommend from clicks alone, or train a reward model on chosen and rejected answers.

    Pitfalls:
        The order of the two inputs is the label. Only differences count: the level of the scores is free
        and may drift. The L2 penalty that recommenders add to it is not part of this loss.

    Sources:
        - Rendle et al. (2009), BPR: Bayesian Personalized Ranking from Implicit Feedback, https://arxiv.org/abs/1205.2618
        - Ouyang et al. (2022), Training Language Models to Follow Instructions, https://arxiv.org/abs/2203.02155
    """
    return softplus(scores_b - scores_a)
