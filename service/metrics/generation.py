"""Generation: how well a language model predicts tokens, and how often one of several samples is right."""

from collections.abc import Callable, Iterator, Mapping
from math import exp
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.domains import ClassIndex, Integers, Simplex
from service.catalogue.metric import Flaw, Number, Params, Undefined, Weights, metric
from service.catalogue.spec import Example, Form, Prediction, Target, given
from service.catalogue.table import Array, Columns, Table
from service.metrics.classification.probabilities import log_likelihood
from service.metrics.finishes import column, each_of, finite, mean_of
from service.metrics.outputs import RANGE


def _perplexity(rows: Table, params: Params) -> Callable[[Weights], Number]:
    """Prepare the exponential of the mean surprise of the tokens."""
    valid, (surprise,) = finite(rows["surprise"])
    tokens = rows["tokens"].astype(np.float64)

    def run(weights: Weights) -> Number:
        count = float((weights * tokens).sum())
        if not count:
            return Undefined("there are no tokens")
        if not valid(weights):
            return Undefined("a token has probability 0, so its perplexity is infinite")
        mean = float((weights * surprise).sum()) / count
        return exp(mean) if mean < 709 else Undefined(RANGE)

    return run


def _each_perplexity(rows: Table, params: Params) -> Array:
    """Return the perplexity of each sequence; NaN where there is none."""
    with np.errstate(all="ignore"):
        found = np.exp(rows["surprise"] / rows["tokens"])
    return np.where(np.isfinite(found), found, np.nan)


@metric(
    title="Perplexity",
    tasks=("nlp", "sequence"),
    keywords=("language model", "bits per token"),
    finish=_perplexity,
    each=_each_perplexity,
    higher_is_better=False,
    work="N T V",
)
def perplexity(
    predictions: Annotated[
        Tensor,
        Prediction(
            (Form("N T V", Simplex(), given(from_logits=False)), Form("N T V", when=given(from_logits=True)))
        ),
    ],
    targets: Annotated[Tensor, Target("N T", ClassIndex("V", ignore="ignore_index"))],
    *,
    from_logits: bool = False,
    ignore_index: int | None = None,
) -> Columns:
    r"""The number of equally likely tokens that a language model chooses between, on average.

    Formula:
        \exp\Bigl(-\frac{1}{\sum_n T_n} \sum_n \sum_t \ln p_{nt}(y_{nt})\Bigr)

    Args:
        predictions: Probabilities ``[N, T, V]`` of each token, or logits with `from_logits`.
        targets: The tokens ``[N, T]``; shift them by one, so that they stand where they are predicted.
        from_logits: Whether predictions are logits, to which the softmax is applied.
        ignore_index: Tokens with this value do not count, such as padding.

    Use when:
        Language models of one vocabulary are compared.

    Pitfalls:
        It is a number of all tokens, so long sequences weigh more. Models with other tokens do not compare. Undefined where a
        token has probability 0: nothing is clipped. From logits it is exact.

    Sources:
        - Jelinek et al. (1977), Perplexity, a measure of the difficulty of speech recognition tasks
        - torchmetrics, perplexity
    """
    counted = torch.ones_like(targets, dtype=torch.bool) if ignore_index is None else targets != ignore_index
    chosen = torch.where(counted, targets, 0).long()
    logs = log_likelihood(predictions.flatten(0, 1), chosen.flatten(), from_logits).reshape(chosen.shape)
    surprise = torch.where(counted, -logs, 0.0)
    return {"surprise": column(surprise.sum(-1)), "tokens": column(counted.sum(-1))}


def _drawn(inputs: Mapping[str, Any], params: Params) -> Iterator[Flaw]:
    """Find problems of which fewer samples were drawn than are tried, or than are right."""
    right, drawn, least = column(inputs["predictions"]), column(inputs["targets"]), params["k"]
    for row in map(int, np.flatnonzero(drawn < least)):
        yield Flaw(("targets", row), f"at least {least} samples, as k says", str(drawn[row]))
    for row in map(int, np.flatnonzero((right < 0) | (right > drawn))):
        words = f"a number from 0 to {drawn[row]}, that of the samples drawn"
        yield Flaw(("predictions", row), words, str(right[row]))


@metric(
    title="Pass at k",
    tasks=("nlp", "generative"),
    keywords=("code generation", "HumanEval", "pass@k"),
    finish=mean_of("passes", "there are no problems"),
    each=each_of("passes"),
    signed=("k",),
    check=_drawn,
    work="N k",
    example=Example(inputs={"predictions": [3, 0, 10], "targets": [10, 10, 10]}, params={"k": 5}),
)
def pass_at_k(
    predictions: Annotated[Tensor, Prediction("N", Integers())],
    targets: Annotated[Tensor, Target("N", Integers())],
    *,
    k: Annotated[int, Ge(1), Le(10_000)] = 1,
) -> Columns:
    r"""The probability that at least one of k samples is right, estimated without bias from more of them.

    Formula:
        \frac{1}{N} \sum_n \Bigl(1 - \binom{n_n - c_n}{k} \Big/ \binom{n_n}{k}\Bigr)

    Args:
        predictions: How many samples ``[N]`` of each problem are right.
        targets: How many samples ``[N]`` were drawn, at least `k`.
        k: How many samples may be tried.

    Use when:
        Programs are generated and tested, and several attempts are allowed.

    Pitfalls:
        One minus the k-th power of the share of wrong samples has a bias; this has none. Draw more than k samples: with just
        k of them it varies most.

    Sources:
        - Chen et al. (2021), Evaluating Large Language Models Trained on Code, https://arxiv.org/abs/2107.03374
    """
    right, wrong, drawn = (one.double() for one in (predictions, targets - predictions, targets))
    passed, missed = torch.zeros_like(drawn), torch.ones_like(drawn)
    for draw in range(k):
        # a sum, since 1 - missed loses the digits of a small probability
        passed = passed + missed * (right / (drawn - draw)).clamp(max=1)
        missed = missed * ((wrong - draw).clamp(min=0) / (drawn - draw))
    return {"passes": column(torch.where(missed < 0.5, 1 - missed, passed))}
