"""Variants of cross entropy that bend its curve: less for labels that may be wrong, more for a better fit."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Prediction, SizeRange, Target, Unreduced
from service.losses.exponentials import remaining
from service.losses.surprise import surprise


@loss(
    title="Poly-1 cross entropy",
    tasks=("classification",),
    aliases=("poly_loss", "poly1"),
    requires=(SizeRange("C", least=2),),
    range=lambda params: (min(0.0, params["epsilon"]), None),
)
def poly1_cross_entropy(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C"))],
    *,
    epsilon: float = 2.0,
) -> Annotated[Tensor, Unreduced("N ...")]:
    r"""Cross entropy with the first term of its series in 1 - p made larger or smaller.

    Formula:
        -\log p_y + \epsilon\,(1 - p_y), \quad p = \operatorname{softmax}(z)

    Args:
        logits: Unnormalised log-probabilities; the second axis runs over the classes.
        targets: Index of the true class.
        epsilon: Added to the coefficient of 1 - p, which is 1 in cross entropy.

    Use when:
        Cross entropy works and one more number to tune may gain a little.

    Pitfalls:
        Below -1, `epsilon` rewards mistakes on samples that are nearly right. The best value depends on the
        data set, and its sign too.

    Sources:
        - Leng et al. (2022), PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions,
          https://arxiv.org/abs/2204.12511
    """
    cost = surprise(logits, targets)
    return cost + epsilon * remaining(cost)


@loss(
    title="Generalized cross entropy",
    tasks=("classification",),
    aliases=("gce",),
    requires=(SizeRange("C", least=2),),
    range=lambda params: (0, 1 / params["q"]),
)
def generalized_cross_entropy(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C"))],
    *,
    q: Annotated[float, Gt(0), Le(1)] = 0.7,
) -> Annotated[Tensor, Unreduced("N ...")]:
    r"""Between cross entropy and absolute error: bounded, so robust to noisy labels.

    Formula:
        \frac{1 - p_y^q}{q}, \quad p = \operatorname{softmax}(z)

    Args:
        logits: Unnormalised log-probabilities; the second axis runs over the classes.
        targets: Index of the true class.
        q: 1 gives the absolute error 1 - p, towards 0 it becomes cross entropy.

    Use when:
        Some labels are wrong, and cross entropy would learn them by heart.

    Pitfalls:
        A sample that is far off has hardly any gradient, so training may not start from a bad
        initialisation: begin with a smaller `q` or with cross entropy.

    Sources:
        - Zhang and Sabuncu (2018), Generalized Cross Entropy Loss for Training Deep Neural Networks with
          Noisy Labels, https://arxiv.org/abs/1805.07836
    """
    # 1 - p ** q by the logarithm of p: it has the digits of a small q, and its slope is finite at p = 0
    return remaining(q * surprise(logits, targets)) / q


@loss(
    title="Symmetric cross entropy",
    tasks=("classification",),
    aliases=("sce",),
    requires=(SizeRange("C", least=2),),
    range=(0, None),
)
def symmetric_cross_entropy(
    logits: Annotated[Tensor, Prediction("N C ...")],
    targets: Annotated[Tensor, Target("N ...", ClassIndex("C"))],
    *,
    alpha: Annotated[float, Ge(0)] = 0.1,
    beta: Annotated[float, Ge(0)] = 1.0,
    log_zero: Annotated[float, Lt(0)] = -4.0,
) -> Annotated[Tensor, Unreduced("N ...")]:
    r"""Cross entropy plus its reverse, which is bounded and tolerates noisy labels.

    Formula:
        -\alpha \log p_y - \beta A\,(1 - p_y), \quad p = \operatorname{softmax}(z)

    Args:
        logits: Unnormalised log-probabilities; the second axis runs over the classes.
        targets: Index of the true class.
        alpha: Weight of the cross entropy, which learns fast and also learns the noise.
        beta: Weight of the reverse cross entropy, which resists the noise.
        log_zero: A, which replaces the logarithm of the zeros of a one-hot target.

    Use when:
        Labels are noisy and some classes are harder than others.

    Pitfalls:
        `beta` and `log_zero` only act through their product. The authors' code takes log 1e-4 = -9.21 for
        `log_zero`, their paper -4.

    Sources:
        - Wang et al. (2019), Symmetric Cross Entropy for Robust Learning with Noisy Labels,
          https://arxiv.org/abs/1908.06112
    """
    cost = surprise(logits, targets)
    return alpha * cost - beta * log_zero * remaining(cost)
