"""The catalogues: all declared losses, or metrics, by name and alias. They are plain values, so tests can build small ones."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from heapq import nlargest
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from service.catalogue.declaration import Declaration
from service.catalogue.declare import Loss
from service.catalogue.metric import AnyMetric, Metric
from service.problems import quoted

AnyLoss = Loss[..., Any]
D = TypeVar("D", bound=Declaration[..., Any])


LONGEST_NAME = 256
"""Longest name to look up, with its dashes; no loss's name is longer."""
LONGEST_COMPARED = 40
"""Characters of an unknown name that are compared with the known ones."""


class Unknown(KeyError):
    """There is no loss, or metric, of that name; ``closest`` holds the most similar names."""

    def __init__(self, name: str, closest: list[str], word: str = "loss") -> None:
        super().__init__(name)
        self.name = name
        self.closest = closest
        self.word = word

    def __str__(self) -> str:
        closest = f"; the closest names are {', '.join(self.closest)}" if self.closest else ""
        return f"There is no {self.word} {quoted(self.name)}{closest}."


class Registry(Mapping[str, D], Generic[D]):
    """Declarations of one kind by name, in alphabetical order. Aliases resolve, but are not listed.

    Lookups ignore case, ``-``, ``_`` and a trailing ``loss``, so that the class names of torch
    resolve: ``BCEWithLogitsLoss`` is ``binary_cross_entropy_with_logits`` by its alias.
    """

    kind: type[D]
    word: str
    """What a declaration of this kind is called."""
    plural: str

    def __init__(self, *families: ModuleType) -> None:
        members = (member for family in families for member in vars(family).values())
        declared = [member for member in members if isinstance(member, self.kind)]
        self._declared = {one.name: one for one in sorted(declared, key=lambda one: one.name)}
        self._by_key: dict[str, D] = {}
        self._closest = lru_cache(maxsize=256)(self._find_closest)
        for one in self._declared.values():
            for name in (one.name, *one.aliases):
                if (other := self._by_key.setdefault(key(name), one)) is not one:
                    raise ValueError(f"{other.name} and {one.name} both claim the name {name}")

    def __getitem__(self, name: str) -> D:
        if (found := self.find(name)) is None:
            raise Unknown(name, self.closest(name), self.word)
        return found

    def __contains__(self, name: object) -> bool:
        # a Mapping would look it up, and compare an unknown name with all others
        return self.find(name) is not None

    def closest(self, name: str) -> list[str]:
        """Return the three most similar names, by name or alias."""
        # bounds the memory of the cache, whose keys come from clients
        return self._closest(name[:LONGEST_COMPARED])

    def find(self, name: object) -> D | None:
        """Return the declaration of that name or alias, or None."""
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            return None
        return self._declared.get(name) or self._by_key.get(key(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    @cached_property
    def _pairs(self) -> Mapping[str, frozenset[str]]:
        """The pairs of letters in each name and alias."""
        return {name: _pairs(name) for name in self._by_key}

    def _find_closest(self, name: str) -> list[str]:
        """Find the closest names."""
        # difflib is slow, so it only compares the names that share most pairs of letters
        asked = key(name)
        shared = _pairs(asked)
        pairs = self._pairs
        likely = nlargest(12, pairs, key=lambda other: 2 * len(shared & pairs[other]) - len(other))
        close = difflib.get_close_matches(asked, likely, n=9, cutoff=0)
        return list(dict.fromkeys(self._by_key[found].name for found in close))[:3]


class Catalogue(Registry[AnyLoss]):
    """The losses."""

    kind = Loss
    word, plural = "loss", "losses"


class MetricCatalogue(Registry[AnyMetric]):
    """The metrics."""

    kind = Metric
    word, plural = "metric", "metrics"


class Catalogues(NamedTuple):
    """What the items of a batch may name."""

    losses: Catalogue
    metrics: MetricCatalogue


def _pairs(letters: str) -> frozenset[str]:
    """Return the pairs of adjacent letters, with marks for both ends, as short names have few pairs otherwise."""
    ended = f"^{letters}$"
    return frozenset(ended[start : start + 2] for start in range(len(ended) - 1))


def key(name: str) -> str:
    """Return the normalised form of a name, the same for ``BCE-Loss`` and ``bce``."""
    letters = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    return letters.removesuffix("loss") or letters
