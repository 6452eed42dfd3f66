"""Minimum risk training: the expected cost of a few candidates under the model."""

from dataclasses import dataclass
from math import inf
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Facts, Integers, Lengths, LogProbabilities, Mask, Real
from service.catalogue.spec import Condition, Diagnostic, Example, Prediction, Target, Unreduced
from service.losses.sequence.bleu import bleu_plus_one


@dataclass(frozen=True, slots=True)
class Tokens(Integers):
    """Any integers, drawn from a vocabulary of five, so that texts have n-grams in common."""

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randint(5, shape, generator=rng)


@loss(
    title="Minimum risk",
    tasks=("nlp", "sequence"),
    aliases=("mrt", "expected_risk"),
    requires=(
        Condition(
            "/inputs/mask",
            "a valid candidate in each row",
            lambda facts: f"none in row {int(_occupied(facts).byte().argmin())}",
            lambda facts: _occupied(facts).all(),
        ),
    ),
)
def minimum_risk(
    log_probabilities: Annotated[Tensor, Prediction("N K", LogProbabilities(), where="mask")],
    costs: Annotated[Tensor, Target("N K", Real(), where="mask")],
    mask: Annotated[Tensor, Target("N K", Mask())] | None = None,
    *,
    alpha: Annotated[float, Gt(0)] = 0.005,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Expected cost of candidate sequences under the model: trains on the metric itself.

    Formula:
        \sum_k Q_k\, c_k, \quad Q = \operatorname{softmax}(\alpha \log p)

    Args:
        log_probabilities: Log-probability of each candidate, summed over its tokens.
        costs: Cost of each candidate, for instance 1 - BLEU.
        mask: True at the candidates that count, at least one a row; all if absent.
        alpha: Sharpness of the distribution over the candidates.

    Use when:
        Whole sequences have a cost that no token-wise loss can express.

    Pitfalls:
        `alpha` is small by design, so that the candidates weigh nearly the same: at 1 the most probable one
        decides alone. Candidates should be distinct, or duplicates count twice.

    Sources:
        - Shen et al. (2016), Minimum Risk Training for Neural Machine Translation,
          https://arxiv.org/abs/1512.02433
    """
    if mask is not None:
        log_probabilities = torch.where(mask, log_probabilities, -inf)
        costs = torch.where(mask, costs, 0.0)
    return _expected(costs, log_probabilities, alpha)


class TranslationRisk(NamedTuple):
    """A loss per source, and the score of each of its candidates."""

    loss: Annotated[Tensor, Unreduced("N")]
    bleu: Annotated[Tensor, Diagnostic("N K")]


@loss(
    title="Expected BLEU",
    tasks=("nlp", "sequence"),
    aliases=("bleu", "mrt_bleu"),
    example=Example(sizes={"T": 6, "S": 6}, params={"alpha": 1.0}),
    work=("N K T T max_order/4", "N K T S max_order/4"),
    range=(0, 1),
)
def expected_bleu(
    log_probabilities: Annotated[Tensor, Prediction("N K", LogProbabilities())],
    candidates: Annotated[Tensor, Target("N K T", Tokens())],
    candidate_lengths: Annotated[Tensor, Target("N K", Lengths("T"))],
    targets: Annotated[Tensor, Target("N S", Tokens())],
    target_lengths: Annotated[Tensor, Target("N", Lengths("S", least=1))],
    *,
    alpha: Annotated[float, Gt(0)] = 0.005,
    max_order: Annotated[int, Ge(1), Le(8)] = 4,
) -> TranslationRisk:
    r"""Expected 1 - BLEU of candidate translations under the model, BLEU smoothed for single sentences.

    Formula:
        \sum_k Q_k \left( 1 - \mathrm{BP}_k \Bigl( \prod_{n=1}^{n_{\max}} p_{k,n} \Bigr)^{1/n_{\max}} \right),
        \quad p_{k,1} = \frac{m_1}{c_1},\ p_{k,n} = \frac{m_n + 1}{c_n + 1},
        \quad Q = \operatorname{softmax}(\alpha \log p)

    Args:
        log_probabilities: Log-probability of each candidate, summed over its tokens.
        candidates: Tokens of each candidate, padded at the end with anything.
        candidate_lengths: How many tokens each candidate has.
        targets: Tokens of the reference, padded at the end with anything.
        target_lengths: How many tokens the reference has.
        alpha: Sharpness of the distribution over the candidates.
        max_order: Length of the longest n-grams that are compared.

    Use when:
        A translation model is fine-tuned on BLEU itself.

    Pitfalls:
        The gradient goes through the weights of the candidates only, so one candidate alone teaches nothing.
        `alpha` is small by design. Every integer is an ordinary token, 0 too: lengths alone say what is
        padding. Smoothing differs among libraries; here a candidate equal to its reference scores 1 at any
        length, and one without a common token, or an empty one, scores 0.

    Sources:
        - Shen et al. (2016), Minimum Risk Training for Neural Machine Translation,
          https://arxiv.org/abs/1512.02433
        - Lin and Och (2004), ORANGE: a Method for Evaluating Automatic Evaluation Metrics for Machine
          Translation, https://aclanthology.org/C04-1072/
    """
    bleu = bleu_plus_one(
        candidates, candidate_lengths, targets, target_lengths, max_order, like=log_probabilities
    )
    # rounded probabilities may sum to more than 1
    return TranslationRisk(_expected(1 - bleu, log_probabilities, alpha).clamp(max=1), bleu)


def _expected(costs: Tensor, log_probabilities: Tensor, alpha: float) -> Tensor:
    """Return the mean cost under the sharpened distribution over the candidates."""
    return ((alpha * log_probabilities).softmax(1) * costs).sum(1)


def _occupied(facts: Facts) -> Tensor:
    """Return which rows of the mask leave a candidate."""
    mask = facts.inputs.get("mask")
    return torch.tensor(True) if mask is None else mask.any(1)
