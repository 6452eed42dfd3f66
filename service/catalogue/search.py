"""Search the losses as a learner would: by task, or with words such as "iou for rotated boxes"."""

import re
from collections.abc import Mapping
from functools import cache

from service.catalogue.registry import AnyLoss, Catalogue, key

WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be best by data do does for from function functions good how i in is it learn learning "
        "loss losses my need not of on or should that the to use used using want what when where which with"
    )
)
MOST_WORDS = 16
"""Words of a query after these are ignored, so that no query takes long."""
ENDING = re.compile(r"(?<=\w{3})(?:ies|es|(?<!s)s|ing|ed|ion|e|y)$")
"""Endings to cut off, so that "noisy" finds "noise" and "boxes" finds "box"."""


def search(catalogue: Catalogue, task: str | None = None, query: str | None = None) -> list[AnyLoss]:
    """Return the losses for a task that match a query, best match first; without a query in alphabetical order.

    Words match longer ones and other endings: "class" finds "classification", "noise" finds "noisy". Words such
    as "for" and "loss" are ignored. Losses that match fewer words than another are left out; if even the best
    matches less than half of them, nothing is found. A word counts most in a name or alias, then in the title, in
    the summary and tasks, in the use cases, and least in the pitfalls. A loss whose name or alias equals the query
    comes first.
    """
    wanted = (task or "").strip().lower().replace("-", "_").replace(" ", "_")
    losses = [loss for loss in catalogue.values() if not wanted or wanted in loss.tasks]
    words = list(dict.fromkeys(_words(query or "")))[:MOST_WORDS]
    if not words:
        return losses
    named = {loss for loss in losses if key(query or "") in map(key, (loss.name, *loss.aliases))}
    scores = {loss: [_score(loss, word) for word in words] for loss in losses}
    matched = {loss: len(words) - found.count(0) for loss, found in scores.items()}
    most = max([(len(words) + 1) // 2, *matched.values()])
    found = [loss for loss in losses if loss in named or matched[loss] == most]
    return sorted(found, key=lambda loss: (loss not in named, -sum(scores[loss])))


def _score(loss: AnyLoss, word: str) -> int:
    """Return how well a loss matches a word: the weight of the word there, less if it is only part of another."""
    weights = _weights(loss)
    if whole := weights.get(_stem(word), 0):
        return 4 * whole
    begun = max((weight for longer, weight in weights.items() if longer.startswith(word)), default=0)
    # "iou" is in "giou"
    part = 2 * begun or any(word in key(name) for name in (loss.name, *loss.aliases))
    return part if len(word) > 2 else 0


@cache
def _weights(loss: AnyLoss) -> Mapping[str, int]:
    """Return the weight of each word in a loss's description, with and without its ending."""
    prose = loss.prose
    fields = {
        1: prose.pitfalls,
        3: prose.use_when,
        4: " ".join((prose.summary, *loss.tasks)),
        6: loss.title,
        8: " ".join((loss.name, *loss.aliases)),
    }
    words = [(word, weight) for weight, text in fields.items() for word in _words(text)]
    return dict(words) | {_stem(word): weight for word, weight in words}


def _words(text: str) -> list[str]:
    """Return the significant words of a text: "mover's" is one, "multi_label" are two."""
    words = WORD.findall(re.sub("['’]", "", text.lower()))
    return [word for word in words if word not in STOP_WORDS]


def _stem(word: str) -> str:
    """Return a word without its ending, so that "overlapping" finds "overlap"."""
    stem = ENDING.sub("", word)
    return stem[:-1] if len(stem) > 4 and stem[-1] == stem[-2] else stem
