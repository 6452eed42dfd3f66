"""Texts against references by what they share: BLEU, chrF and ROUGE, comparable with sacrebleu and rouge-score."""

from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen

from service.catalogue.metric import Listing, Number, Params, Undefined, Weights, metric
from service.catalogue.spec import Example
from service.catalogue.table import Array, Columns, Table
from service.metrics.alignments import aligning, common
from service.metrics.finishes import ratio
from service.metrics.outputs import EMPTY
from service.metrics.tokens import (
    TOKENIZERS,
    Tokenizer,
    characters,
    english,
    most_of,
    runs,
    shared,
    words_apart,
)

ORDERS = 4
"""The longest runs of tokens that BLEU counts."""
ROUGES = ("rouge1", "rouge2", "rougeL")
EXAMPLE = Example(
    inputs={
        "predictions": ["The cat sat on the mat.", "It rains in the south today."],
        "targets": ["The cat sat down on the mat.", "Today it rains in the south."],
    }
)
References = str | Annotated[list[str], MinLen(1)]


def references_of(target: str | list[str]) -> list[str]:
    """Return the references of one text."""
    return [target] if isinstance(target, str) else target


def counts_of_rows(rows: Sequence[Any], *shape: int) -> Array:
    """Return counts as a column, also of no rows."""
    return np.array(rows, dtype=np.int64).reshape(len(rows), *shape)


def _bleu(counts: Array, effective: bool = False) -> float:
    """Return BLEU from hits and totals by order, and the lengths of the texts and of their references.

    ``effective``: only the orders of which there are any count, as in sacrebleu's score of a single sentence.
    """
    hits, totals, (length, reference) = counts[:ORDERS], counts[ORDERS:-2], counts[-2:]
    if not hits.any():
        return 0.0
    present = int((totals > 0).sum())
    if present < ORDERS and not effective:
        return 0.0
    # sacrebleu's smoothing "exp": the k-th order without hits has 1 / 2^k of a hit
    missed = np.cumsum(hits[:present] == 0)
    precisions = np.where(hits[:present] > 0, hits[:present], 0.5**missed) / totals[:present]
    penalty = min(0.0, 1 - reference / length)
    return exp(penalty + sum(map(log, precisions)) / present)


def _bleu_of_corpus(rows: Table, params: Params) -> Callable[[Weights], Number]:
    """Sum the counts of sentences, and return BLEU."""
    counts = rows["counts"].astype(np.float64).T.copy()

    def run(weights: Weights) -> Number:
        sums: Array = (counts * weights).sum(1)
        if not weights.any():
            return Undefined(EMPTY)
        return Undefined("no text or reference has a token") if not sums.any() else _bleu(sums)

    return run


@metric(
    title="BLEU",
    tasks=("nlp",),
    aliases=("sacrebleu",),
    keywords=("machine translation", "n-grams"),
    finish=_bleu_of_corpus,
    each=lambda rows, params: np.array(
        [_bleu(one, effective=True) for one in rows["counts"].astype(np.float64)]
    ),
    signed=("tokenize", "lowercase"),
    redraw="N",
    effort=lambda inputs, params: 13 * characters(inputs),
    example=EXAMPLE,
)
def bleu(
    predictions: Annotated[list[str], Listing("prediction", str)],
    targets: Annotated[list[str | list[str]], Listing("target", References)],
    *,
    tokenize: Tokenizer = "13a",
    lowercase: bool = False,
) -> Columns:
    r"""The share of a translation's words and runs of up to four words that its references have, over a whole corpus.

    Formula:
        \min\Bigl(1, e^{1 - R / H}\Bigr)\, \Bigl(\prod_{n = 1}^{4} p_n\Bigr)^{1/4}

    Args:
        predictions: Texts, without tokenising.
        targets: A reference for each text, or a list of them.
        tokenize: How texts are cut into tokens: 13a for most languages, zh for Chinese, char for single characters, none
            for texts that are tokenised already.
        lowercase: Whether to compare in lower case.

    Use when:
        Translations are compared with published ones: the value is sacrebleu's, over 100.

    Pitfalls:
        It is a number of a corpus, not the mean of its sentences. Orders without a hit are smoothed as sacrebleu does
        (`exp`); it is 0 where no text has four tokens. Values differ by points between tokenisers, so compare equal
        signatures only. H counts the tokens of the texts, R those of the reference closest in length. A row's own value is
        sacrebleu's for a sentence.

    Sources:
        - Papineni et al. (2002), BLEU: a Method for Automatic Evaluation of Machine Translation,
          https://doi.org/10.3115/1073083.1073135
        - Post (2018), A Call for Clarity in Reporting BLEU Scores, https://aclanthology.org/W18-6319
    """

    def tokens(text: str) -> list[str]:
        return TOKENIZERS[tokenize]((text.lower() if lowercase else text).rstrip())

    rows = [
        _bleu_counts(tokens(text), [tokens(one) for one in references_of(target)])
        for text, target in zip(predictions, targets, strict=True)
    ]
    return {"counts": counts_of_rows(rows, 2 * ORDERS + 2)}


def _bleu_counts(text: list[str], references: list[list[str]]) -> list[int]:
    """Return hits and totals by order, the length of a text, and of the closest reference, the shorter one of two."""
    orders = range(1, ORDERS + 1)
    hits = [shared(runs(text, order), most_of(runs(one, order) for one in references)) for order in orders]
    totals = [max(0, len(text) - order + 1) for order in orders]
    closest = min(map(len, references), key=lambda length: (abs(length - len(text)), length))
    return [*hits, *totals, len(text), closest]


def _chrf(counts: Array, beta: float) -> float:
    """Return chrF from the numbers of runs in texts, in references and in both, by order ``[orders, 3]``."""
    counts = counts[(counts[:, :2] > 0).all(1)]
    if not counts[:, 2].any():
        return 0.0
    precision, recall = (
        float((counts[:, 2] / counts[:, 0]).mean()),
        float((counts[:, 2] / counts[:, 1]).mean()),
    )
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def _chrf_of_corpus(rows: Table, params: Params) -> Callable[[Weights], Number]:
    """Sum the counts of sentences, and return chrF."""
    counts = np.moveaxis(rows["counts"].astype(np.float64), 0, -1).copy()

    def run(weights: Weights) -> Number:
        if not weights.any():
            return Undefined(EMPTY)
        sums: Array = (counts * weights).sum(-1)
        if not sums[:, 1].any():
            return Undefined("no reference has a character")
        return _chrf(sums, params["beta"])

    return run


@metric(
    title="chrF",
    tasks=("nlp",),
    keywords=("machine translation", "character n-grams", "chrF++"),
    finish=_chrf_of_corpus,
    each=lambda rows, params: np.array(
        [_chrf(one, params["beta"]) for one in rows["counts"].astype(np.float64)]
    ),
    signed=("char_order", "word_order", "beta"),
    redraw="2N",
    effort=lambda inputs, params: 6 * (params["char_order"] + params["word_order"]) * characters(inputs),
    example=EXAMPLE,
)
def chrf(
    predictions: Annotated[list[str], Listing("prediction", str)],
    targets: Annotated[list[str | list[str]], Listing("target", References)],
    *,
    char_order: Annotated[int, Ge(1), Le(16)] = 6,
    word_order: Annotated[int, Ge(0), Le(4)] = 0,
    beta: Annotated[float, Gt(0), Le(1e6)] = 2,
) -> Columns:
    r"""The F-score of runs of characters that a text shares with its reference, over a whole corpus.

    Formula:
        (1 + \beta^2)\, \frac{P R}{\beta^2 P + R}

    Args:
        predictions: Texts, without tokenising.
        targets: A reference for each text, or a list of them, of which the best counts.
        char_order: The longest runs of characters, without white space.
        word_order: The longest runs of words that count too; 2 is chrF++.
        beta: How many times recall R matters as much as precision P.

    Use when:
        Languages have rich word forms, or words are not separated: no tokeniser is needed.

    Pitfalls:
        Precision and recall are averaged over the orders first, as in sacrebleu 2; the value is sacrebleu's, over 100.
        Case matters.

    Sources:
        - Popović (2015), chrF: character n-gram F-score for automatic MT evaluation, https://doi.org/10.18653/v1/W15-3049
    """

    def counters(text: str) -> list[Any]:
        characters, words = "".join(text.split()), words_apart(text) if word_order else []
        return [runs(characters, order + 1) for order in range(char_order)] + [
            runs(words, order + 1) for order in range(word_order)
        ]

    rows = [
        _best_counts(counters(text), [counters(one) for one in references_of(target)], beta)
        for text, target in zip(predictions, targets, strict=True)
    ]
    return {"counts": counts_of_rows(rows, char_order + word_order, 3)}


def _best_counts(text: list[Any], references: list[list[Any]], beta: float) -> Array:
    """Return the counts with the reference of the best score, the first one of equals."""
    found = [
        # an order that the reference lacks counts for neither
        np.array(
            [
                [one.total() if two else 0, two.total(), shared(one, two)]
                for one, two in zip(text, reference, strict=True)
            ]
        )
        for reference in references
    ]
    return max(found, key=lambda counts: _chrf(counts, beta))


def _rouge_effort(inputs: Mapping[str, Any], params: Params) -> int:
    """Estimate the work from the most words that texts can have."""
    texts = zip(inputs["predictions"], inputs["targets"], strict=True)
    return 8 * characters(inputs) + sum(aligning(len(text) // 2, len(other) // 2) for text, other in texts)


def _rouge(rows: Table, params: Params) -> Callable[[Weights], Any]:
    """Prepare the means of the scores."""
    scores, counted = np.moveaxis(rows["scores"], 0, -1).copy(), rows["counts"].astype(np.float64)

    def run(weights: Weights) -> Any:
        weights = weights * counted
        total = float(weights.sum())
        sums: Array = (scores * weights).sum(-1)
        return {
            name: {
                part: ratio(float(sums[place, index]), total, "no text or reference has a word")
                for index, part in enumerate(("precision", "recall", "f1"))
            }
            for place, name in enumerate(ROUGES)
        }

    return run


def _rouge_of_rows(rows: Table, params: Params) -> Array:
    """Return the F-score of rougeL of each text; NaN where neither it nor its reference has words."""
    return np.where(rows["counts"], rows["scores"][:, -1, -1], np.nan)


def _wordless(rows: Table, params: Params) -> dict[str, str]:
    """Return the reason that some texts are left out."""
    count = len(rows) - np.count_nonzero(rows["counts"])
    return {"samples": f"left out {count}: neither text nor reference has words"} if count else {}


@metric(
    title="ROUGE",
    tasks=("nlp",),
    keywords=("summarisation", "summarization", "rouge1", "rouge2", "rougeL"),
    finish=_rouge,
    each=_rouge_of_rows,
    left_out=_wordless,
    effort=_rouge_effort,
    redraw="N",
    example=EXAMPLE,
)
def rouge(
    predictions: Annotated[list[str], Listing("prediction", str)],
    targets: Annotated[list[str], Listing("target", str)],
) -> Columns:
    r"""The words (rouge1), pairs of words (rouge2) and longest common subsequence (rougeL) that a text shares with another.

    Formula:
        P = \frac{m}{|\hat y|}, \quad R = \frac{m}{|y|}, \quad F = \frac{2 P R}{P + R}

    Args:
        predictions: Texts.
        targets: A reference for each text.

    Use when:
        Summaries are compared with published ones.

    Pitfalls:
        Words are runs of the letters a to z and digits in lower case, as rouge-score has them, without its stemmer: texts in
        other scripts have none. A score is 0 where a text or its reference has no words, or no pairs of them, as in rouge-score;
        a text without words whose reference has none either is left out, with a reason in `undefined`. The values are the
        means over the others; a row's own value is the F-score of rougeL.

    Sources:
        - Lin (2004), ROUGE: A Package for Automatic Evaluation of Summaries, https://aclanthology.org/W04-1013
        - rouge-score, RougeScorer
    """
    words = [(english(text), english(one)) for text, one in zip(predictions, targets, strict=True)]
    scores = [_rouge_scores(text, one) for text, one in words]
    return {
        "scores": np.array(scores, dtype=np.float64).reshape(-1, len(ROUGES), 3),
        "counts": np.array([bool(text or one) for text, one in words], bool),
    }


def _rouge_scores(text: list[str], reference: list[str]) -> list[list[float]]:
    """Return precision, recall and F-score of words, of pairs, and of the longest common subsequence."""
    matches = [
        *(shared(runs(text, order), runs(reference, order)) for order in (1, 2)),
        common(text, reference),
    ]
    found: list[list[float]] = []
    for match, shorter in zip(matches, (0, 1, 0), strict=True):
        precision, recall = (match / max(len(words) - shorter, 1) for words in (text, reference))
        found.append([precision, recall, 2 * precision * recall / (precision + recall) if match else 0.0])
    return found
