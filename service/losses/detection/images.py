"""True boxes of several images in one list, in the order of the images, and how many each image has."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts, Kind
from service.catalogue.spec import Condition, Target


@dataclass(frozen=True, slots=True)
class ImageCounts(Domain):
    """How many of the true boxes, which the dimension called ``dim`` counts, each image has."""

    dim: str = "M"
    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return f"integers from 0 to {self.dim}"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= 0) & (values <= facts.size(self.dim))

    def range(self, facts: Facts) -> tuple[float, float]:
        return 0, facts.size(self.dim)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        [images] = shape
        if not images:
            return torch.zeros(0, dtype=torch.int64)
        return torch.randint(images, (facts.size(self.dim),), generator=rng).bincount(minlength=images)


BoxCounts = Annotated[Tensor, Target("B", ImageCounts("M"))]

EVERY_BOX_IN_AN_IMAGE = Condition(
    "/inputs/counts",
    "counts that sum to M, the number of true boxes",
    lambda facts: f"a sum of {int(facts.inputs['counts'].sum())} with M = {facts.size('M')}",
    lambda facts: facts.inputs["counts"].sum() == facts.size("M"),
)


def image_of(counts: Tensor, boxes: int) -> Tensor:
    """Return the image of each box, ``[M]``."""
    places = torch.arange(boxes, device=counts.device)
    return (places[:, None] >= counts.cumsum(0)).sum(1)
