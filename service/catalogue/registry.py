"""The catalogue: every declared loss by name and alias. It is a value, so a test can build a small one."""

import difflib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, cast

from service.catalogue.declare import Loss
from service.problems import quoted

AnyLoss = Loss[..., Any]


class UnknownLoss(LookupError):
    """No loss of that name; ``closest`` holds the names that were perhaps meant."""

    def __init__(self, name: str, closest: list[str]) -> None:
        super().__init__(f"There is no loss {quoted(name)}; the closest names are {', '.join(closest)}.")
        self.name = name
        self.closest = closest


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
        for loss in self._losses.values():
            for name in (loss.name, *loss.aliases):
                if (other := self._by_key.setdefault(_key(name), loss)) is not loss:
                    raise ValueError(f"{other.name} and {loss.name} both claim the name {name}")

    def __getitem__(self, name: str) -> AnyLoss:
        if (loss := self._losses.get(name) or self._by_key.get(_key(name))) is None:
            raise UnknownLoss(name, self._closest(name))
        return loss

    def __iter__(self) -> Iterator[str]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

    def _closest(self, name: str) -> list[str]:
        """Return the names of the three losses that resemble ``name`` most, by their aliases too."""
        # an absurdly long name would take difflib seconds
        keys = difflib.get_close_matches(_key(name[:40]), self._by_key, n=9, cutoff=0)
        return list(dict.fromkeys(self._by_key[key].name for key in keys))[:3]


def _key(name: str) -> str:
    """Return what is compared of a name."""
    key = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    return key.removesuffix("loss") or key
