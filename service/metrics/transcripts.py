"""Transcripts and answers: how many edits lead to the reference, and whether an answer is one that is accepted."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from service.catalogue.metric import Finish, Listing, Number, Params, Weights, metric
from service.catalogue.spec import Example
from service.catalogue.table import Array, Columns, Table
from service.metrics.alignments import aligning, edits
from service.metrics.finishes import each_of, mean_of, ratio
from service.metrics.tokens import characters, normalized

Texts = Annotated[list[str], Listing("prediction", str)]
Transcripts = Annotated[list[str], Listing("target", str)]
EXAMPLE = Example(
    inputs={
        "predictions": ["the cat sat on a mat", "it rains in the south"],
        "targets": ["the cat sat on the mat", "it rains in the south today"],
    }
)


def _effort(inputs: Mapping[str, Any], params: Params) -> int:
    """Estimate the work to align characters."""
    return sum(aligning(len(text), len(one)) for text, one in zip(*inputs.values(), strict=True))


def _effort_of_words(inputs: Mapping[str, Any], params: Params) -> int:
    """Estimate the work to align the most words that texts can have."""
    pairs = zip(*inputs.values(), strict=True)
    return 3 * characters(inputs) + sum(aligning(len(text) // 2, len(one) // 2) for text, one in pairs)


def _rate_of(unit: str) -> Finish:
    """Return the finish of errors by reference words or characters."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Number]:
        errors, length = (rows[name].astype(np.float64) for name in ("errors", "length"))
        return lambda weights: ratio(
            float((weights * errors).sum()), float((weights * length).sum()), f"no reference has a {unit}"
        )

    return finish


def _each_rate(rows: Table, params: Params) -> Array:
    """Return the rate of each row; NaN where the reference is empty."""
    return np.where(rows["length"], rows["errors"] / np.maximum(rows["length"], 1), np.nan)


@metric(
    title="Word error rate",
    tasks=("nlp", "sequence"),
    aliases=("word_error_rate",),
    keywords=("speech recognition", "ASR", "transcripts"),
    finish=_rate_of("word"),
    effort=_effort_of_words,
    each=_each_rate,
    higher_is_better=False,
    example=EXAMPLE,
)
def wer(predictions: Texts, targets: Transcripts) -> Columns:
    r"""The words to substitute, delete and insert to get the references, by the number of their words.

    Formula:
        \frac{\sum_n S_n + D_n + I_n}{\sum_n W_n}

    Args:
        predictions: Transcripts.
        targets: The right transcripts.

    Use when:
        Speech is recognised, in languages that separate words by spaces.

    Pitfalls:
        It is a number of the whole corpus, not the mean of its sentences, and can be above 1. Words are compared as they are
        sent: bring case, punctuation and numbers to one form first. Undefined where no reference has a word.

    Sources:
        - jiwer, wer
    """
    return _errors([text.split() for text in predictions], [text.split() for text in targets])


@metric(
    title="Character error rate",
    tasks=("nlp", "sequence"),
    aliases=("character_error_rate",),
    keywords=("speech recognition", "ASR", "OCR", "handwriting"),
    finish=_rate_of("character"),
    effort=_effort,
    each=_each_rate,
    higher_is_better=False,
    example=EXAMPLE,
)
def cer(predictions: Texts, targets: Transcripts) -> Columns:
    r"""The characters to substitute, delete and insert to get the references, by the number of their characters.

    Formula:
        \frac{\sum_n S_n + D_n + I_n}{\sum_n C_n}

    Args:
        predictions: Texts that were recognised.
        targets: The right texts.

    Use when:
        Writing is recognised, or speech in languages without spaces between words.

    Pitfalls:
        Spaces count, also at the ends (jiwer cuts those). A character is a code point: an accent that stands alone counts, so
        normalise Unicode first. Undefined where no reference has a character.

    Sources:
        - torchmetrics, char_error_rate
    """
    return _errors(predictions, targets)


@metric(
    title="Edit distance",
    tasks=("nlp", "sequence"),
    aliases=("levenshtein",),
    finish=mean_of("errors"),
    effort=_effort,
    each=each_of("errors"),
    higher_is_better=False,
    example=EXAMPLE,
)
def edit_distance(predictions: Texts, targets: Transcripts) -> Columns:
    r"""The characters to substitute, delete and insert to get a text from another: the mean over the texts.

    Formula:
        \frac{1}{N} \sum_n (S_n + D_n + I_n)

    Args:
        predictions: Texts.
        targets: The texts that they should be.

    Use when:
        Texts are of about the same length, or corrections are made by hand.

    Pitfalls:
        It grows with the length of the texts: `cer` divides by it. A character is a code point.

    Sources:
        - Levenshtein (1966), Binary codes capable of correcting deletions, insertions, and reversals
        - torchmetrics, edit_distance
    """
    return _errors(predictions, targets)


def _errors(texts: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]) -> Columns:
    """Return edits and the lengths of the references."""
    found = [edits(text, one) for text, one in zip(texts, references, strict=True)]
    return {"errors": np.array(found, np.int64), "length": np.array([*map(len, references)], np.int64)}


def _squad(rows: Table, params: Params) -> Callable[[Weights], Any]:
    """Prepare both means."""
    runs = {name: mean_of(name)(rows, params) for name in ("exact_match", "f1")}
    return lambda weights: {name: run(weights) for name, run in runs.items()}


@metric(
    title="SQuAD",
    tasks=("nlp",),
    keywords=("question answering", "exact match"),
    finish=_squad,
    effort=lambda inputs, params: 4 * characters(inputs),
    each=each_of("f1"),
    example=Example(
        inputs={"predictions": ["in the tower", ""], "targets": [["the tower", "Eiffel Tower"], []]}
    ),
)
def squad(predictions: Texts, targets: Annotated[list[list[str]], Listing("target", list[str])]) -> Columns:
    r"""Whether an answer is one that is accepted, and the F-score of the words that it shares with the closest one.

    Formula:
        \frac{1}{N} \sum_n \max_a [\hat y_n = a], \quad \frac{1}{N} \sum_n \max_a F(\hat y_n, a)

    Args:
        predictions: An answer for each question; an empty one for none.
        targets: The accepted answers; an empty list where the question has none.

    Use when:
        Short answers are taken from a text.

    Pitfalls:
        Case, punctuation, the articles a, an and the, and spare spaces do not count, which suits English. A question without
        answers is right if the answer is empty, as in SQuAD 2.0. A row's own value is its F-score.

    Sources:
        - Rajpurkar et al. (2016), SQuAD, https://doi.org/10.18653/v1/D16-1264
        - Rajpurkar et al. (2018), Know What You Don't Know, https://doi.org/10.18653/v1/P18-2124
    """
    pairs = [
        (normalized(text), [one for one in map(normalized, answers) if one] or [""])
        for text, answers in zip(predictions, targets, strict=True)
    ]
    return {
        "exact_match": np.array([text in answers for text, answers in pairs], bool),
        "f1": np.array([max(_overlap(text, one) for one in answers) for text, answers in pairs], np.float64),
    }


def _overlap(text: str, answer: str) -> float:
    """Return the F-score of shared words; without any in one of the two, whether both have none."""
    first, second = text.split(), answer.split()
    if not first or not second:
        return float(first == second)
    same = (Counter(first) & Counter(second)).total()
    precision, recall = same / len(first), same / len(second)
    return 2 * precision * recall / (precision + recall) if same else 0.0
