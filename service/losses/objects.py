"""True objects of several images in one list, in the order of the images, and the number of those in each image."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts, Kind
from service.catalogue.spec import Condition, SizeRange


@dataclass(frozen=True, slots=True)
class ObjectCounts(Domain):
    """Integers that divide the M objects of a batch among its images."""

    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return "integers from 0 to M"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= 0) & (values <= facts.size("M"))

    def range(self, facts: Facts) -> tuple[float, float]:
        return 0, facts.size("M")

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        (images,) = shape
        if not images:
            return torch.zeros(0, dtype=torch.int64)
        return torch.bincount(torch.randint(images, (facts.size("M"),), generator=rng), minlength=images)


OBJECTS = (
    SizeRange("M", least=0),
    Condition(
        "/inputs/counts",
        "counts that sum to M, the number of true objects",
        lambda facts: f"a sum of {int(facts.inputs['counts'].sum())} with M = {facts.size('M')}",
        lambda facts: facts.inputs["counts"].sum() == facts.size("M"),
    ),
)
"""What is required of labels and counts."""


def image_of(counts: Tensor, boxes: int) -> Tensor:
    """Return the image of each box, ``[M]``."""
    places = torch.arange(boxes, device=counts.device)
    return (places[:, None] >= counts.cumsum(0)).sum(1)
