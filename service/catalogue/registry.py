"""The catalogue: every declared loss by name and alias. It is a value, so a test can build a small one."""

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
"""Characters that a name may have, with its dashes; a longer one is no loss's."""
LONGEST_COMPARED = 40
"""Characters of an unknown name that are compared with those there are."""


class UnknownLoss(KeyError):
    """No loss of that name; ``closest`` holds the names that were perhaps meant."""

    def __init__(self, name: str, closest: list[str]) -> None:
        super().__init__(name)
        self.name = name
        self.closest = closest

    def __str__(self) -> str:
        return f"There is no loss {quoted(self.name)}; the closest names are {', '.join(self.closest)}."


class Catalogue(Mapping[str, AnyLoss]):
    """Losses by name, in alphabetical order. Aliases resolve, but are not listed.

    Names are compared without case, ``-``, ``_`` and a trailing ``loss``, so that the class names of torch
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

    def closest(self, name: str) -> list[str]:
        """Return the names of the three losses that resemble a name most, by their aliases too."""
        # what is remembered of a client's name has a bound
        return self._closest(name[:LONGEST_COMPARED])

    def find(self, name: object) -> AnyLoss | None:
        """Return the loss of that name or alias; None where there is none."""
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            return None
        return self._losses.get(name) or self._by_key.get(key(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

    @cached_property
    def _pairs(self) -> Mapping[str, frozenset[str]]:
        """The pairs of letters of each name and alias."""
        return {name: _pairs(name) for name in self._by_key}

    def _find_closest(self, name: str) -> list[str]:
        """Find the closest names."""
        # difflib takes its time: it is asked about the few that share most pairs of letters
        asked = key(name)
        shared = _pairs(asked)
        pairs = self._pairs
        likely = nlargest(12, pairs, key=lambda other: 2 * len(shared & pairs[other]) - len(other))
        close = difflib.get_close_matches(asked, likely, n=9, cutoff=0)
        return list(dict.fromkeys(self._by_key[found].name for found in close))[:3]


def _pairs(letters: str) -> frozenset[str]:
    """Return the pairs of letters that follow each other, its ends among them: short names have few others."""
    ended = f"^{letters}$"
    return frozenset(ended[start : start + 2] for start in range(len(ended) - 1))


def key(name: str) -> str:
    """Return what is compared of a name, so that ``BCE-Loss`` and ``bce`` are one."""
    letters = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    return letters.removesuffix("loss") or letters
