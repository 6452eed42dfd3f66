"""The catalogue: all declared losses by name and alias. It is a plain value, so tests can build small ones."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from heapq import nlargest
from types import ModuleType
from typing import Any, cast

from service.catalogue.declare import Loss
from service.problems import quoted

AnyLoss = Loss[..., Any]


LONGEST_NAME = 256
"""Longest name to look up, with its dashes; no loss's name is longer."""
LONGEST_COMPARED = 40
"""Characters of an unknown name that are compared with the known ones."""


class UnknownLoss(KeyError):
    """There is no loss of that name; ``closest`` holds the most similar names."""

    def __init__(self, name: str, closest: list[str]) -> None:
        super().__init__(name)
        self.name = name
        self.closest = closest

    def __str__(self) -> str:
        closest = f"; the closest names are {', '.join(self.closest)}" if self.closest else ""
        return f"There is no loss {quoted(self.name)}{closest}."


class Catalogue(Mapping[str, AnyLoss]):
    """Losses by name, in alphabetical order. Aliases resolve, but are not listed.

    Lookups ignore case, ``-``, ``_`` and a trailing ``loss``, so that the class names of torch
    resolve: ``BCEWithLogitsLoss`` is ``binary_cross_entropy_with_logits`` by its alias.
    """

    def __init__(self, *families: ModuleType) -> None:
        members = (member for family in families for member in vars(family).values())
        declared = [cast(AnyLoss, member) for member in members if isinstance(member, Loss)]
        self._losses = {loss.name: loss for loss in sorted(declared, key=lambda loss: loss.name)}
        self._by_key: dict[str, AnyLoss] = {}
        self._closest = lru_cache(maxsize=256)(self._find_closest)
        for loss in self._losses.values():
            for name in (loss.name, *loss.aliases):
                if (other := self._by_key.setdefault(key(name), loss)) is not loss:
                    raise ValueError(f"{other.name} and {loss.name} both claim the name {name}")

    def __getitem__(self, name: str) -> AnyLoss:
        if (loss := self.find(name)) is None:
            raise UnknownLoss(name, self.closest(name))
        return loss

    def __contains__(self, name: object) -> bool:
        # a Mapping would look it up, and compare an unknown name with all others
        return self.find(name) is not None

    def closest(self, name: str) -> list[str]:
        """Return the names of the three most similar losses, by name or alias."""
        # bounds the memory of the cache, whose keys come from clients
        return self._closest(name[:LONGEST_COMPARED])

    def find(self, name: object) -> AnyLoss | None:
        """Return the loss of that name or alias, or None."""
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            return None
        return self._losses.get(name) or self._by_key.get(key(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

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


def _pairs(letters: str) -> frozenset[str]:
    """Return the pairs of adjacent letters, with marks for both ends, as short names have few pairs otherwise."""
    ended = f"^{letters}$"
    return frozenset(ended[start : start + 2] for start in range(len(ended) - 1))


def key(name: str) -> str:
    """Return the normalised form of a name, the same for ``BCE-Loss`` and ``bce``."""
    letters = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    return letters.removesuffix("loss") or letters
