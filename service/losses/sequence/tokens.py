"""The loss between scores of tokens and the tokens that are right, at every position of a text."""

from math import nan
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex
from service.catalogue.spec import Diagnostic, Divisor, Example, Prediction, Target, Unreduced
from service.losses.surprise import surprise


class TokenLoss(NamedTuple):
    """A loss per token, which of them count, and the perplexity of those."""

    loss: Annotated[Tensor, Unreduced("...")]
    divisor: Annotated[Tensor, Divisor("...", empty=nan)]
    perplexity: Annotated[Tensor, Diagnostic("")]


@loss(
    title="Token cross entropy",
    tasks=("nlp", "sequence"),
    aliases=("language_modeling", "maximum_likelihood", "mle", "seq2seq_cross_entropy"),
    example=Example(sizes={"...": (2, 3), "V": 5}),
    range=(0, None),
)
def token_cross_entropy(
    logits: Annotated[Tensor, Prediction("... V")],
    targets: Annotated[Tensor, Target("...", ClassIndex("V", ignore="ignore_index"))],
    *,
    ignore_index: int = -100,
    label_smoothing: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> TokenLoss:
    r"""Negative log-probability of each right token: language models, translation, tagging.

    Formula:
        -(1 - \varepsilon) \log p_y - \frac{\varepsilon}{V} \sum_v \log p_v,
        \quad p = \operatorname{softmax}(z)

    Args:
        logits: Unnormalised log-probabilities; the last axis runs over the vocabulary.
        targets: Index of the right token at each position.
        ignore_index: Target value of positions, such as padding, that cost nothing and are excluded from the mean.
        label_smoothing: Share of the probability that is spread evenly over the vocabulary.

    Use when:
        A model predicts tokens one position at a time.

    Pitfalls:
        Nothing is shifted here: the target of a position is the token that follows it. The mean runs over all
        tokens that count; averaging the means of sequences, or of unequal batches whose gradients are
        accumulated, gives another number. The vocabulary is the last axis. If every token is ignored, the
        mean is NaN. `perplexity` ignores the smoothing.

    Sources:
        - Bengio et al. (2003), A Neural Probabilistic Language Model,
          https://www.jmlr.org/papers/v3/bengio03a.html
        - Szegedy et al. (2016), Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567
    """
    counted = targets != ignore_index
    loss = surprise(logits, targets, -1, ignore=ignore_index)
    perplexity = (loss.sum() / counted.sum()).exp()
    if label_smoothing:
        # inside and outside: values at ignored positions must not reach the gradient
        known = torch.where(counted[..., None], logits, 0.0)
        even = torch.where(counted, -known.log_softmax(-1).mean(-1), 0.0)
        loss = (1 - label_smoothing) * loss + label_smoothing * even
    return TokenLoss(loss, counted.to(loss), perplexity)
