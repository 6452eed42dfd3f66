"""F score of entities, such as persons and places, that tags mark in sentences."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np

from service.catalogue.metric import Flaw, Listing, Number, Params, Value, Weights, metric
from service.catalogue.spec import Example
from service.catalogue.table import Array, Columns, Ragged, Table
from service.metrics.finishes import mean_defined, ratio

Scheme = Literal["IOB2", "BIOES"]
Entity = tuple[str, int, int]
"""The type of an entity, its first token, and the token behind its last one."""
TAG = re.compile(r"O|[BIES](-.*)?", re.DOTALL)
PREFIXES = {None: "OBIES", "IOB2": "OBI", "BIOES": "OBIES"}


def entities(tags: Sequence[str], scheme: Scheme | None) -> set[Entity]:
    """Return the entities of a sentence.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC"], None))
    [('LOC', 3, 4), ('PER', 0, 2)]
    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC"], "IOB2"))
    [('PER', 0, 2)]
    """
    parts = [(tag[0], tag[2:] or "_") for tag in tags]
    return set({None: _lenient, "IOB2": _iob2, "BIOES": _bioes}[scheme](parts))


def _lenient(parts: Sequence[tuple[str, str]]) -> Iterator[Entity]:
    """Yield entities as conlleval: one may begin with any prefix, and ends where another begins or nothing goes on."""
    start, last, kind = 0, "O", ""
    for place, (prefix, name) in enumerate((*parts, ("O", "_"))):
        changed = name != kind
        if last != "O" and (last in "ES" or prefix in "BSO" or changed):
            yield kind, start, place
        if prefix != "O" and (prefix in "BS" or last in "ESO" or changed):
            start = place
        last, kind = prefix, name


def _iob2(parts: Sequence[tuple[str, str]]) -> Iterator[Entity]:
    """Yield entities that begin with B and go on with I of the same type."""
    for start, (prefix, kind) in enumerate(parts):
        if prefix == "B":
            yield kind, start, _inside(parts, start, kind)


def _bioes(parts: Sequence[tuple[str, str]]) -> Iterator[Entity]:
    """Yield entities that are S, or begin with B, go on with I and end with E of the same type."""
    for start, (prefix, kind) in enumerate(parts):
        if prefix == "S":
            yield kind, start, start + 1
        elif prefix == "B":
            end = _inside(parts, start, kind)
            if end < len(parts) and parts[end] == ("E", kind):
                yield kind, start, end + 1


def _inside(parts: Sequence[tuple[str, str]], start: int, kind: str) -> int:
    """Return the first token behind ``start`` that is no I of this type."""
    end = start + 1
    while end < len(parts) and parts[end] == ("I", kind):
        end += 1
    return end


def f_of_entities(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Finish the F scores by type, with their averages."""
    kinds, counts = rows.ragged("kind"), rows.ragged("counts")
    names, codes = np.unique(kinds.values.astype(str), return_inverse=True)
    places = kinds.rows
    columns = [counts.values[:, k].astype(np.float64) for k in range(3)]

    def run(weights: Weights) -> Value:
        drawn = weights[places]
        right, predicted, expected = (np.bincount(codes, drawn * one, len(names)) for one in columns)
        there = predicted + expected > 0
        scores, support = 2 * right[there] / (predicted + expected)[there], expected[there]
        values: list[Number] = scores.tolist()
        none = "there are no entities"
        return {
            "micro": ratio(2 * float(right.sum()), float((predicted + expected).sum()), none),
            "macro": mean_defined(values, none),
            "weighted": ratio(
                float((scores * support).sum()), float(support.sum()), "there are no entities in targets"
            ),
            "per_class": dict(zip(names[there].tolist(), values, strict=True)),
        }

    return run


def f_of_each(rows: Table, params: Params) -> Array:
    """Return the F score of each sentence; NaN without entities."""
    counts = rows.ragged("counts")
    right, predicted, expected = (np.bincount(counts.rows, counts.values[:, k], len(rows)) for k in range(3))
    below = predicted + expected
    return np.divide(2 * right, below, out=np.full(len(rows), np.nan), where=below > 0)


def _effort(inputs: Mapping[str, Any], params: Params) -> int:
    """Return the units of work for tags: each may be an entity."""
    return 32 * sum(map(len, chain.from_iterable(inputs.values())))


def _effort_drawn(inputs: Mapping[str, Any], params: Params) -> tuple[int, int]:
    """Return those to count entities once more, and to list their types."""
    sentences = [*chain.from_iterable(inputs.values())]
    return sum(map(len, sentences)) // 4, 24 * len({tag[2:] for tag in chain.from_iterable(sentences)})


def flaws_of_tags(inputs: Mapping[str, Any], params: Params) -> Iterator[Flaw]:
    """Yield tags that the scheme does not have, and rows with unequal numbers of tags."""
    prefixes = PREFIXES[params["scheme"]]
    expected = f"O, or one of {', '.join(prefixes[1:])} with a type, such as B-PER"
    for name, sentences in inputs.items():
        for row, tags in enumerate(sentences):
            for place, tag in enumerate(tags):
                if tag[:1] not in prefixes or not TAG.fullmatch(tag):
                    yield Flaw((name, row, place), expected, f'"{tag[:40]}"')
    for row, (predicted, true) in enumerate(zip(inputs["predictions"], inputs["targets"], strict=True)):
        if len(predicted) != len(true):
            yield Flaw(("predictions", row), f"{len(true)} tags, as many as targets", str(len(predicted)))


@metric(
    title="F score of entities",
    tasks=("nlp", "sequence"),
    finish=f_of_entities,
    effort=_effort,
    effort_drawn=_effort_drawn,
    each=f_of_each,
    check=flaws_of_tags,
    redraw="2N",
    signed=("scheme",),
    aliases=("seqeval", "ner_f1"),
    keywords=("named entity recognition", "NER", "chunking", "BIO tags"),
    example=Example(
        inputs={
            "predictions": [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]],
            "targets": [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]],
        }
    ),
)
def entity_f1(
    predictions: Annotated[list[list[str]], Listing("prediction", list[str])],
    targets: Annotated[list[list[str]], Listing("target", list[str])],
    *,
    scheme: Scheme | None = None,
) -> Columns:
    r"""The F score of whole entities: one is right if its type, its first and its last token are.

    Formula:
        \frac{2 \text{TP}}{2 \text{TP} + \text{FP} + \text{FN}}

    Args:
        predictions: A list of tags for each sentence, such as ``["B-PER", "I-PER", "O"]``.
        targets: As many tags for each sentence.
        scheme: IOB2 or BIOES for entities exactly as the scheme writes them; null also takes those that begin with I or E, as
            conlleval does.

    Use when:
        A model tags tokens, and whole names are what counts.

    Pitfalls:
        Tags may be mostly right while no entity is. Under a scheme, an entity that begins with I, or with BIOES lacks its E, is
        none: the same tags score otherwise if `scheme` is null. Types without entities have no score; ``macro`` is the
        mean over types, ``micro`` the score of all entities together.

    Sources:
        - Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 shared task, 2003
        - seqeval, f1_score
    """
    found = [_row(*pair, scheme) for pair in zip(predictions, targets, strict=True)]
    lengths = np.array([len(one) for one in found], np.int64)
    kinds = np.array([kind for one in found for kind, _ in one], dtype=object)
    counts = np.array([numbers for one in found for _, numbers in one], np.int64).reshape(-1, 3)
    return {"kind": Ragged(lengths, kinds), "counts": Ragged(lengths, counts)}


def _row(
    predictions: Sequence[str], targets: Sequence[str], scheme: Scheme | None
) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the types of a sentence, with their numbers of right, predicted and true entities."""
    predicted, expected = entities(predictions, scheme), entities(targets, scheme)
    counts: dict[str, list[int]] = {}
    for place, some in enumerate((predicted & expected, predicted, expected)):
        for kind, _, _ in some:
            counts.setdefault(kind, [0, 0, 0])[place] += 1
    return [(kind, (one[0], one[1], one[2])) for kind, one in sorted(counts.items())]
