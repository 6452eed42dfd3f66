"""Masks of hard truths, which only the losses of this family have."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts, Kind


@dataclass(frozen=True, slots=True)
class HardMask(Domain):
    """Pixels of an object, 1, and of its surroundings, 0; ``ignore`` names the param of a value to skip."""

    ignore: str | None = None
    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return "0 or 1" + (f", or {self.ignore}" if self.ignore else "")

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        ignored = facts.params[self.ignore] if self.ignore else None
        hard = (values == 0) | (values == 1)
        return hard if ignored is None else hard | (values == ignored)

    def range(self, facts: Facts) -> tuple[float, float]:
        return 0, 1

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randint(2, shape, generator=rng)
