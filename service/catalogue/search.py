"""Search the losses, or the metrics, as a learner would: by task, or with words such as "iou for rotated boxes"."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from service.catalogue.declaration import AnyDeclaration
from service.catalogue.registry import D, Registry, key
from service.catalogue.tasks import TASKS

WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be best by data do does for from function functions good how i in is it learn learning "
        "loss losses my need not of on or should that the to use used using want what when where which with"
    )
)
IN_PASSING, NAME = 1, 8
"""Smallest and largest weight of a word, by its place."""
WHOLE, BEGUN = 4, 2
"""Factors for whole words, and for words that match at the start or end."""
SHORTEST_END = 3
"""Fewest letters that match the end of a name; longer words also match the start of others."""
MOST_WORDS, MOST_CHARACTERS = 16, 1000
"""What follows these in a query is ignored, so that no query takes long."""
ENDING = re.compile(r"(?<=\w{3})(?:ies|es|(?<!s)s|ing|ed|ion|e|y)$")
"""Endings to cut off, so that "noisy" finds "noise" and "boxes" finds "box"."""


def search(catalogue: Registry[D], task: str | None = None, query: str | None = None) -> list[D]:
    """Return the losses, or metrics, for a task that match a query, best match first; without a query in alphabetical order.

    Words match longer ones and other endings: "class" finds "classification", "noise" finds "noisy". Words such
    as "for" and "loss" are ignored. Losses that match fewer words than another are left out; if even the best
    matches less than half of them, nothing is found. A word counts most in a name or alias, then in a keyword, in the
    title, in the words of the task, in the summary, in the use cases; in the pitfalls only if it is nowhere else.
    A loss whose name or alias equals the query comes first, then those with all of it in one keyword.
    """
    wanted, query = as_task(task or ""), (query or "")[:MOST_CHARACTERS]
    losses = [loss for loss in catalogue.values() if not wanted or wanted in loss.tasks]
    words = list(dict.fromkeys(_words(query)))[:MOST_WORDS]
    if not words:
        return losses
    named = {loss for loss in losses if key(query) in map(key, (loss.name, *loss.aliases))}
    columns = [_scores(losses, word) for word in words]
    scores = {loss: [column[place] for column in columns] for place, loss in enumerate(losses)}
    matched = {loss: len(words) - found.count(0) for loss, found in scores.items()}
    most = max([(len(words) + 1) // 2, *matched.values()])
    found = [loss for loss in losses if loss in named or matched[loss] == most]
    stems = {*map(_stem, words)}
    known = {loss for loss in found if any(stems <= phrase for phrase in _phrases(loss))}
    return sorted(found, key=lambda loss: (loss not in named, loss not in known, -sum(scores[loss])))


def as_task(written: str) -> str:
    """Return a task as losses declare it.

    >>> as_task(" Metric-learning")
    'metric_learning'
    """
    return written.strip().lower().replace("-", "_").replace(" ", "_")


def _scores(losses: Sequence[AnyDeclaration], word: str) -> list[int]:
    """Return how well each loss matches a word; mentions in passing count only if there are no others."""
    scores = [_score(loss, word) for loss in losses]
    least = WHOLE * IN_PASSING if max(scores, default=0) > WHOLE * IN_PASSING else 0
    return [score if score > least else 0 for score in scores]


def _score(loss: AnyDeclaration, word: str) -> int:
    """Return how well a loss matches a word: the weight of the word there, less if it is only part of another."""
    weights = _weights(loss)
    if whole := weights.get(_stem(word), 0):
        return WHOLE * whole
    if len(word) < SHORTEST_END:
        return 0
    begun = max((weight for longer, weight in weights.items() if longer.startswith(word)), default=0)
    if len(word) > SHORTEST_END and begun:
        return BEGUN * begun
    # "iou" ends "giou"
    names = WORD.findall(" ".join((loss.name, *loss.aliases)).lower())
    return BEGUN * NAME if any(name.endswith(word) for name in names) else 0


@cache
def _weights(loss: AnyDeclaration) -> Mapping[str, int]:
    """Return the weight of each word in a loss's description, with and without its ending."""
    prose = loss.prose
    fields = {
        IN_PASSING: prose.pitfalls,
        3: prose.use_when,
        4: prose.summary,
        5: " ".join((*loss.tasks, *(TASKS.get(task, "") for task in loss.tasks))),
        6: loss.title,
        7: " ".join(loss.keywords),
        NAME: " ".join((loss.name, *loss.aliases)),
    }
    words = [(word, weight) for weight, text in fields.items() for word in _words(text)]
    # the greatest weight of a word, and of all words with one stem
    found: dict[str, int] = {}
    for word, weight in words:
        found[word] = found[_stem(word)] = weight
    return found


@cache
def _phrases(loss: AnyDeclaration) -> Sequence[frozenset[str]]:
    """Return the stems of each of a loss's keywords."""
    return [frozenset(map(_stem, _words(phrase))) for phrase in loss.keywords]


def _words(text: str) -> list[str]:
    """Return the significant words of a text: "mover's" is one, "multi_label" are two."""
    words = WORD.findall(re.sub("['’]", "", text.lower()))
    return [word for word in words if word not in STOP_WORDS]


def _stem(word: str) -> str:
    """Return a word without its ending, so that "overlapping" finds "overlap"."""
    stem = ENDING.sub("", word)
    return stem[:-1] if len(stem) > 4 and stem[-1] == stem[-2] else stem
