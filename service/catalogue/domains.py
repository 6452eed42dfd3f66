"""Value domains: the numbers that an input may hold.

A domain can do three things, from which the rest follows: `describe` itself (for the catalogue, OpenAPI and messages),
check which elements it `admits` (validation), and `draw` values (examples, warm-up, property tests). It may refer to
the call's params and other inputs through `Facts`: ``box_format`` decides which boxes are valid, a mask which elements
matter.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from service.catalogue.dims import Shape, Sizes

Kind = Literal["float", "int", "bool"]
MOST_CLASSES = 1 << 16
"""Most classes where a request does not give their number."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The context in which values are checked or drawn.

    ``dtype`` is the coarser of the dtype in which values were sent and the one in which they are computed.
    """

    sizes: Sizes
    params: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    dtype: torch.dtype = torch.float64

    def size(self, name: str) -> int:
        """Return the single size of a dimension's name."""
        return self.sizes[name][0]


class Domain(ABC):
    """A set of admissible tensors of one kind of number."""

    kind: ClassVar[Kind] = "float"
    infinite: ClassVar[bool] = False
    """Whether targets may be infinite too; predictions may if `admits` allows it."""
    unbounded: ClassVar[bool] = False
    """Whether every number of the kind is admitted; targets must still be finite."""

    @property
    def exact(self) -> bool:
        """Whether values are marks or indices, which must not be rounded."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """Describe the admitted values in one phrase."""

    @abstractmethod
    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        """Return a boolean tensor of ``values``' shape, false where an element is outside the domain.

        It also runs under vmap, to check the calls of a batch as one.
        """

    def range(self, facts: Facts) -> tuple[float, float] | None:
        """Return bounds between which every value is admitted, both inclusive; None if there are none.

        Comparing the smallest and largest value with them decides most calls without `admits`.
        """
        return None

    def found(self, values: Tensor, index: tuple[int, ...]) -> str:
        """Describe the value at an element that is not admitted."""
        return show_number(values[index])

    @abstractmethod
    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        """Return random admissible values in float64, or in the domain's own kind."""


@dataclass(frozen=True, slots=True)
class Real(Domain):
    """Any number: the output of a model without a final activation."""

    unbounded: ClassVar[bool] = True

    def describe(self) -> str:
        return "any number"

    def range(self, facts: Facts) -> tuple[float, float]:
        return -math.inf, math.inf

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return torch.ones_like(values, dtype=torch.bool)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Between(Domain):
    """A closed interval, for probabilities and soft masks; ``ignore`` names a param.

    ``marks``: an end has a special meaning, such as 1 for the centre of an object in a heatmap. ``rounded``: numbers are
    rounded to half types although one of them may be ignored.
    """

    low: float = 0.0
    high: float = 1.0
    ignore: str | None = None
    marks: bool = False
    rounded: bool = False

    @property
    def exact(self) -> bool:
        return self.marks or (self.ignore is not None and not self.rounded)

    def describe(self) -> str:
        return f"numbers from {self.low:g} to {self.high:g}" + _or_ignored(self.ignore)

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= self.low) & (values <= self.high) | _ignored(self.ignore, values, facts)

    def range(self, facts: Facts) -> tuple[float, float]:
        return self.low, self.high

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Inside(Domain):
    """An open interval, for quantiles."""

    low: float = 0.0
    high: float = 1.0

    def describe(self) -> str:
        return f"numbers above {self.low:g} and below {self.high:g}"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values > self.low) & (values < self.high)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        unit = torch.rand(shape, generator=rng, dtype=torch.float64)
        return self.low + (self.high - self.low) * (0.05 + 0.9 * unit)


@dataclass(frozen=True, slots=True)
class AtLeast(Domain):
    """Numbers from ``low`` on, for counts and relevances."""

    low: float = 0.0

    def describe(self) -> str:
        return f"numbers of at least {self.low:g}"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return values >= self.low

    def range(self, facts: Facts) -> tuple[float, float]:
        return self.low, math.inf

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return self.low + 3 * torch.rand(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Above(Domain):
    """Numbers greater than ``low``, for scales and variances."""

    low: float = 0.0

    def describe(self) -> str:
        return f"numbers above {self.low:g}"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return values > self.low

    def range(self, facts: Facts) -> tuple[float, float]:
        return math.nextafter(self.low, math.inf), math.inf

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return self.low + 0.2 + 3 * torch.rand(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class OneOf(Domain):
    """A few given numbers, such as -1 and 1 for the two sides of a margin."""

    choices: tuple[float, ...]
    hint: str = ""

    def describe(self) -> str:
        *most, last = (f"{choice:g}" for choice in self.choices)
        return f"{', '.join(most)} or {last}" + (f" ({self.hint})" if self.hint else "")

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        admitted = torch.zeros_like(values, dtype=torch.bool)
        for choice in self.choices:
            admitted |= values == choice
        return admitted

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        choices = torch.tensor(self.choices, dtype=torch.float64)
        return choices[torch.randint(len(choices), shape, generator=rng)]


@dataclass(frozen=True, slots=True)
class LogProbabilities(Domain):
    """Logarithms of probabilities along the axis ``axis``: never positive; minus infinity is log 0."""

    axis: int = -1
    infinite: ClassVar[bool] = True

    def describe(self) -> str:
        return "log-probabilities, so numbers of at most 0"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return values <= 1e-6

    def range(self, facts: Facts) -> tuple[float, float]:
        return -math.inf, 1e-6

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).log_softmax(self.axis)


@dataclass(frozen=True, slots=True)
class Simplex(Domain):
    """Probability distributions along ``axis``: numbers from 0 to 1 whose sum is within 1e-3 of 1.

    In half types, whose softmax is less exact, the sum may be off by the rounding errors of its numbers.
    """

    axis: int = -1

    def describe(self) -> str:
        return (
            f"probabilities that sum to 1 along {'the last axis' if self.axis == -1 else f'axis {self.axis}'}"
        )

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        total = values.sum(self.axis, keepdim=True, dtype=torch.float64)
        number = torch.finfo(facts.dtype)
        rounded = number.eps * (1 + values.shape[self.axis] * number.smallest_normal)
        # the tolerance includes 0.001 itself, which float64 writes as slightly more
        off = (total - 1).abs() > max(1e-3, rounded) + 1e-12
        return (values >= 0) & (values <= 1) & ~off

    def found(self, values: Tensor, index: tuple[int, ...]) -> str:
        value = values[index].item()
        if 0 <= value <= 1:
            axis = self.axis % values.dim()
            row = values[(*index[:axis], slice(None), *index[axis + 1 :])]
            return f"numbers that sum to {row.sum(dtype=torch.float64).item():.10g}"
        return show_number(values[index])

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).softmax(self.axis)


@dataclass(frozen=True, slots=True)
class ClassIndex(Domain):
    """Integers that index the dimension called ``dim``; ``ignore`` names the param of a value to skip.

    Indices below ``least`` have another meaning, such as 0 for the background.
    """

    dim: str = "C"
    ignore: str | None = None
    least: int = 0
    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return f"integers from {self.least} to {self.dim} - 1" + _or_ignored(self.ignore)

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        within = (values >= self.least) & (values < facts.size(self.dim))
        return within | _ignored(self.ignore, values, facts)

    def range(self, facts: Facts) -> tuple[float, float]:
        return self.least, facts.size(self.dim) - 1

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randint(self.least, facts.size(self.dim), shape, generator=rng)


@dataclass(frozen=True, slots=True)
class Integers(Domain):
    """Any integers: labels that are only compared with each other, or tokens after a sequence's end."""

    kind: ClassVar[Kind] = "int"
    unbounded: ClassVar[bool] = True

    def describe(self) -> str:
        return "any integers"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return torch.ones_like(values, dtype=torch.bool)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        # each label occurs about twice, so that rows have others like them
        return torch.arange(shape[-1] if shape else 1).div(2, rounding_mode="floor").expand(shape).clone()


@dataclass(frozen=True, slots=True)
class Lengths(Domain):
    """Integers that count the leading valid entries along the dimension called ``dim``."""

    dim: str = "T"
    least: int = 0
    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return f"integers from {self.least} to {self.dim}"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= self.least) & (values <= facts.size(self.dim))

    def range(self, facts: Facts) -> tuple[float, float]:
        return self.least, facts.size(self.dim)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        most = facts.size(self.dim)
        return torch.randint(max(self.least, most - 1), most + 1, shape, generator=rng)


@dataclass(frozen=True, slots=True)
class Mask(Domain):
    """A mask of the elements that count; 0 and 1 are read as false and true."""

    kind: ClassVar[Kind] = "bool"
    unbounded: ClassVar[bool] = True

    def describe(self) -> str:
        return "true where an element counts, false where it is left out"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return torch.ones_like(values, dtype=torch.bool)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        # the first entries of a row are always valid, so that no row is fully masked
        most = shape[-1] if shape else 1
        lengths = torch.randint(max(1, most - 1), most + 1, shape[:-1], generator=rng)
        return (torch.arange(most) < lengths[..., None]).reshape(shape)


@dataclass(frozen=True, slots=True)
class Classes(Domain):
    """Classes as integers from 0 to ``count`` - 1, or to the param ``num_classes`` - 1; ``ignore`` names a param."""

    count: int | None = None
    ignore: str | None = None
    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        most = "num_classes - 1" if self.count is None else str(self.count - 1)
        return f"integers from 0 to {most}" + _or_ignored(self.ignore)

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= 0) & (values < self._count(facts)) | _ignored(self.ignore, values, facts)

    def range(self, facts: Facts) -> tuple[float, float]:
        return 0, self._count(facts) - 1

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randint(min(self._count(facts), 3), shape, generator=rng)

    def _count(self, facts: Facts) -> int:
        """Return the number of classes, `MOST_CLASSES` if it is not given."""
        if self.count is not None:
            return self.count
        count = facts.params.get("num_classes")
        return MOST_CLASSES if count is None else count


def show_number(element: Tensor) -> str:
    """Format one element for messages with all digits: 1.0000000001 is not 1.

    >>> show_number(torch.tensor(2.0)), show_number(torch.tensor(2**53 + 1))
    ('2', '9007199254740993')
    """
    return str(element.item()).removesuffix(".0")


def _or_ignored(param: str | None) -> str:
    """Complete a description if a param names one more admissible value."""
    return f", or {param}" if param else ""


def _ignored(param: str | None, values: Tensor, facts: Facts) -> Tensor:
    """Return where ``values`` equal the ignored value; nowhere if that param is null."""
    ignored = facts.params.get(param) if param else None
    return torch.zeros_like(values, dtype=torch.bool) if ignored is None else values == ignored
