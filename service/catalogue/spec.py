"""The words of a declaration: which tensors and params a loss takes, what it returns, what must hold.

Written as metadata of a signature, ``logits: Annotated[Tensor, Prediction("N C ...")]``. Where a tensor has
several readings they are its *forms*: the k-th forms of all inputs belong together (an input with one form
has it in all of them), and the first row of forms that fits all inputs jointly wins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from service.catalogue.dims import Sizes, names
from service.catalogue.domains import Domain, Facts, Kind, Real

Params = Mapping[str, Any]
Bounds = tuple[float | None, float | None]
"""The least and the greatest number that something may be, None where there is none."""
Range = Bounds | Callable[[Params], Bounds]
"""The bounds of a loss, or what they are for given params."""
Role = Literal["prediction", "target"]


@dataclass(frozen=True, slots=True)
class When:
    """A condition on the params alone, with the words that state it."""

    text: str
    holds: Callable[[Params], bool]


ALWAYS = When("", lambda params: True)


def given(**values: Any) -> When:
    """Return the condition that each named param has its given value, or one of a tuple of values."""
    allowed: dict[str, tuple[Any, ...]] = {}
    for name, value in values.items():
        allowed[name] = value if isinstance(value, tuple) else (value,)
    text = " and ".join(f"{name} is {' or '.join(map(_json, choices))}" for name, choices in allowed.items())
    return When(text, lambda params: all(params[name] in choices for name, choices in allowed.items()))


@dataclass(frozen=True, slots=True)
class Form:
    """One reading of a tensor.

    ``when`` says for which params it is meant; ``where`` names a mask input, or an input of lengths along the
    last axis: elements that it leaves out are not checked.
    """

    dims: str
    domain: Domain = field(default_factory=Real)
    when: When = ALWAYS
    where: str | None = None

    def describe(self) -> str:
        """Say which values the form admits."""
        return self.domain.describe() + (f", where {self.where} says they count" if self.where else "")


@dataclass(frozen=True, slots=True)
class Input:
    """What an input tensor must look like. ``optional`` follows from ``| None = None``.

    ``whole``: some form of it holds integers.
    """

    role: Role
    forms: tuple[Form, ...]
    optional: bool = False
    whole: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", any(form.domain.kind == "int" for form in self.forms))

    def form(self, row: int) -> Form:
        """Return the form that belongs to a row of forms."""
        return self.forms[row if len(self.forms) > 1 else 0]

    @property
    def kind(self) -> Kind:
        """The kind of number in the first form, which is the one that catalogues show."""
        return self.forms[0].domain.kind

    @property
    def floating(self) -> bool:
        """Whether some form of the input can be differentiated."""
        return any(form.domain.kind == "float" for form in self.forms)


def Prediction(
    dims: str | Sequence[Form], domain: Domain | None = None, *, where: str | None = None
) -> Input:
    """Describe what the model produced; ``gradients: true`` differentiates with respect to it."""
    return Input("prediction", _forms(dims, domain, where))


def Target(dims: str | Sequence[Form], domain: Domain | None = None, *, where: str | None = None) -> Input:
    """Describe what is not differentiated unless asked: the truth, masks, lengths, references."""
    return Input("target", _forms(dims, domain, where))


def _forms(dims: str | Sequence[Form], domain: Domain | None, where: str | None) -> tuple[Form, ...]:
    """Read the short spelling of a single form."""
    if isinstance(dims, str):
        return (Form(dims, domain or Real(), where=where),)
    assert domain is None and where is None, "forms carry their own domains"
    return tuple(dims)


@dataclass(frozen=True, slots=True)
class Values:
    """Metadata of a param that is a list of numbers: its dims, shared with the inputs, and its domain."""

    dims: str
    domain: Domain = field(default_factory=Real)


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that a loss returns, and in which role.

    ``empty`` is what the mean is where the divisor sums to zero.
    """

    role: Literal["loss", "divisor", "mean_terms", "aux"]
    forms: tuple[Form, ...]
    empty: float = 0.0

    def dims(self, sizes: Sizes, params: Params) -> str:
        """Return the first form's dims whose names are all bound and whose condition holds."""
        for form in self.forms:
            if names(form.dims) <= sizes.keys() and form.when.holds(params):
                return form.dims
        raise AssertionError(f"no form of the output fits {sizes}, {params}")


def Unreduced(dims: str | Sequence[Form]) -> Output:
    """Describe the loss before any reduction."""
    return Output("loss", _forms(dims, None, None))


def Divisor(dims: str | Sequence[Form], *, empty: float = 0.0) -> Output:
    """Describe what ``mean`` divides by in place of one an element: losses weigh or ignore elements so."""
    return Output("divisor", _forms(dims, None, None), empty)


def MeanTerms(dims: str | Sequence[Form]) -> Output:
    """Describe what ``mean`` averages where that is not the unreduced loss itself."""
    return Output("mean_terms", _forms(dims, None, None))


def Diagnostic(dims: str | Sequence[Form]) -> Output:
    """Describe an extra named output, returned under ``aux`` and never differentiated."""
    return Output("aux", _forms(dims, None, None))


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold across inputs, sizes and params beyond each one's own domain.

    ``expected`` and ``got`` finish the sentence "Expected …; got …."; ``pointer`` is where it is told. ``holds`` runs
    under vmap too: what it finds in the values of inputs it returns as a tensor.
    """

    pointer: str
    expected: str
    got: Callable[[Facts], object]
    holds: Callable[[Facts], bool | Tensor]


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Bounds of a dimension. Dimensions that a loss sums over are at least 1 without being told."""

    dim: str
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """Sizes and params for a drawn request, where the defaults do not give a valid or telling one."""

    sizes: Mapping[str, int | Sequence[int]] = field(default_factory=dict[str, int | Sequence[int]])
    params: Params = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Scales:
    """How a loss scales: with these inputs times a positive factor it is itself times ``factor ** degree``.

    No names of inputs means all floating ones. Of each, the first ``entries`` along the last axis are scaled,
    or all; the angle of a box has no unit. Params in ``along`` have the unit of the inputs and are scaled with
    them; ``params`` are the values for which the law holds, such as ``{"eps": 0.0}``.
    """

    degree: float
    inputs: tuple[str, ...] = ()
    entries: int | None = None
    along: tuple[str, ...] = ()
    params: Params = field(default_factory=dict[str, Any])


def _json(value: Any) -> str:
    """Write a param's value as a client would."""
    return {True: "true", False: "false", None: "null"}.get(value, str(value))
