"""The vocabulary of declarations: tensors and params of a loss, its outputs, its requirements.

It is used as metadata in signatures, ``logits: Annotated[Tensor, Prediction("N C ...")]``. A tensor that can be read in
several ways has several *forms*: the k-th forms of all inputs belong together (a single form belongs to all), and the
first row of forms that fits all inputs together is used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from service.catalogue.dims import Sizes, names
from service.catalogue.domains import Domain, Facts, Kind, Real

Params = Mapping[str, Any]
Bounds = tuple[float | None, float | None]
"""The smallest and the largest number; None if there is no bound."""
Range = Bounds | Callable[[Params], Bounds]
"""The bounds of a loss, or a function from params to bounds."""
Role = Literal["prediction", "target"]


@dataclass(frozen=True, slots=True)
class When:
    """A condition on the params alone, with its description."""

    text: str
    holds: Callable[[Params], bool]


ALWAYS = When("", lambda params: True)


def given(**values: Any) -> When:
    """Return the condition that each named param has the given value, or one of a tuple of values."""
    allowed: dict[str, tuple[Any, ...]] = {}
    for name, value in values.items():
        allowed[name] = value if isinstance(value, tuple) else (value,)
    text = " and ".join(f"{name} is {' or '.join(map(_json, choices))}" for name, choices in allowed.items())
    return When(text, lambda params: all(params[name] in choices for name, choices in allowed.items()))


@dataclass(frozen=True, slots=True)
class Form:
    """One way to read a tensor.

    ``when`` restricts the form to some params; ``where`` names an input with a mask, or with lengths along the last axis:
    elements that it excludes are not checked.
    """

    dims: str
    domain: Domain = field(default_factory=Real)
    when: When = ALWAYS
    where: str | None = None

    def describe(self) -> str:
        """Describe the values that the form admits."""
        return self.domain.describe() + (f", where {self.where} says they count" if self.where else "")


@dataclass(frozen=True, slots=True)
class Input:
    """An input tensor. ``optional`` follows from ``| None = None``.

    ``whole``: some form of the input holds integers. ``texts``: a list of strings, one a sample, may take the tensor's place.
    """

    role: Role
    forms: tuple[Form, ...]
    optional: bool = False
    texts: bool = False
    whole: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", any(form.domain.kind == "int" for form in self.forms))

    def form(self, row: int) -> Form:
        """Return the form in a row of forms."""
        return self.forms[row if len(self.forms) > 1 else 0]

    @property
    def kind(self) -> Kind:
        """The kind of number in the first form, which catalogues show."""
        return self.forms[0].domain.kind

    @property
    def floating(self) -> bool:
        """Whether any form of the input can be differentiated."""
        return any(form.domain.kind == "float" for form in self.forms)


def Prediction(
    dims: str | Sequence[Form], domain: Domain | None = None, *, where: str | None = None, texts: bool = False
) -> Input:
    """Describe the output of a model; ``gradients: true`` differentiates with respect to it."""
    return Input("prediction", _forms(dims, domain, where), texts=texts)


def Target(
    dims: str | Sequence[Form], domain: Domain | None = None, *, where: str | None = None, texts: bool = False
) -> Input:
    """Describe an input that is differentiated only on request: the truth, masks, lengths, references."""
    return Input("target", _forms(dims, domain, where), texts=texts)


def _forms(dims: str | Sequence[Form], domain: Domain | None, where: str | None) -> tuple[Form, ...]:
    """Expand the short notation for a single form."""
    if isinstance(dims, str):
        return (Form(dims, domain or Real(), where=where),)
    assert domain is None and where is None, "forms have their own domains"
    return tuple(dims)


@dataclass(frozen=True, slots=True)
class Values:
    """Metadata of a param that is a list of numbers: its dims, whose names the inputs share, and its domain."""

    dims: str
    domain: Domain = field(default_factory=Real)


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor returned by a loss, and its role.

    ``empty`` is the mean if the divisor sums to zero.
    """

    role: Literal["loss", "divisor", "mean_terms", "aux"]
    forms: tuple[Form, ...]
    empty: float = 0.0

    def dims(self, sizes: Sizes, params: Params) -> str:
        """Return the dims of the first form whose names are all bound and whose condition holds."""
        for form in self.forms:
            if names(form.dims) <= sizes.keys() and form.when.holds(params):
                return form.dims
        raise AssertionError(f"no form of the output fits {sizes}, {params}")


def Unreduced(dims: str | Sequence[Form]) -> Output:
    """Describe the loss before any reduction."""
    return Output("loss", _forms(dims, None, None))


def Divisor(dims: str | Sequence[Form], *, empty: float = 0.0) -> Output:
    """Describe the divisor of the ``mean``, for losses that weigh or ignore elements; otherwise it is 1 an element.

    A loss that does so for some params only returns None for the others: ``Annotated[Tensor, Divisor("...")] | None``.
    """
    return Output("divisor", _forms(dims, None, None), empty)


def MeanTerms(dims: str | Sequence[Form]) -> Output:
    """Describe the terms that ``mean`` averages, if they differ from the unreduced loss."""
    return Output("mean_terms", _forms(dims, None, None))


def Diagnostic(dims: str | Sequence[Form]) -> Output:
    """Describe an extra named output, returned under ``aux`` and never differentiated."""
    return Output("aux", _forms(dims, None, None))


@dataclass(frozen=True, slots=True)
class Condition:
    """A requirement across inputs, sizes and params, beyond the domain of each.

    ``expected`` and ``got`` finish the sentence "Expected …; got …."; ``pointer`` is the place of the
    fault. ``holds`` also runs under vmap: if it depends on the values of inputs, it returns a tensor.
    """

    pointer: str
    expected: str
    got: Callable[[Facts], object]
    holds: Callable[[Facts], bool | Tensor]


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Bounds of a dimension. Dimensions that a loss sums over are at least 1 anyway."""

    dim: str
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """Sizes and params for a random request, if the defaults give an invalid or a trivial one.

    ``inputs`` are values of inputs that are not drawn: texts, objects.
    """

    sizes: Mapping[str, int | Sequence[int]] = field(default_factory=dict[str, int | Sequence[int]])
    params: Params = field(default_factory=dict[str, Any])
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Scales:
    """A scaling law: multiplying these inputs by a positive factor multiplies the loss by ``factor ** degree``.

    Without names, all floating inputs are meant. Of each, the first ``entries`` along the last axis are scaled, or all: the
    angle of a box has no unit. Params in ``along`` have the unit of the inputs and are scaled with them; ``params`` are the
    values for which the law holds, such as ``{"eps": 0.0}``.
    """

    degree: float
    inputs: tuple[str, ...] = ()
    entries: int | None = None
    along: tuple[str, ...] = ()
    params: Params = field(default_factory=dict[str, Any])


def _json(value: Any) -> str:
    """Format a param's value as a client would write it."""
    return {True: "true", False: "false", None: "null"}.get(value, str(value))
