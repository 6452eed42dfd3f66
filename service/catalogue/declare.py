"""Turn a typed torch function into a `Loss`: the one declaration from which all else derives."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar, cast, get_args, get_type_hints

from torch import Tensor

from service.catalogue import docstring
from service.catalogue.dims import Shape, Sizes, expand, names
from service.catalogue.spec import (
    ALWAYS,
    Bounds,
    Condition,
    Example,
    Form,
    Input,
    Output,
    Params,
    Range,
    Scales,
    SizeRange,
    Values,
)

P = ParamSpec("P")
R = TypeVar("R", bound=Tensor | tuple[Tensor, ...])
T = TypeVar("T")

REQUIRED = inspect.Parameter.empty
"""The default of a param that must be sent."""

Fuse = Literal["stack", "rows", "alone"]
"""How several calls become one: over a new axis by vmap, concatenated along the rows, or not at all."""


@dataclass(frozen=True, slots=True)
class Param:
    """A hyper-parameter: its annotated type (with annotated-types constraints) and its default.

    ``values`` is set where it is a list of numbers whose length the inputs decide.
    """

    annotation: Any
    default: Any
    values: Values | None


class Terms(NamedTuple):
    """What a loss function returned, by role."""

    loss: Tensor
    divisor: Tensor | None
    mean_terms: Tensor | None
    aux: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Loss(Generic[P, R]):
    """A declared loss. It still is its function: ``huber(predictions, targets, delta=2.0)`` type-checks."""

    name: str
    title: str
    tasks: tuple[str, ...]
    aliases: tuple[str, ...]
    differentiable: bool
    exact_gradient: bool
    fuse: Fuse
    requires: tuple[Condition | SizeRange, ...]
    work: tuple[str, ...]
    range: Range
    unit: str | None
    scales: Scales | None
    example: Example
    function: Callable[P, R]
    inputs: Mapping[str, Input]
    params: Mapping[str, Param]
    outputs: Mapping[str, Output]
    prose: docstring.Prose

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def terms(self, inputs: Mapping[str, Tensor], params: Params) -> Terms:
        """Call the function by name and sort what it returns into loss, divisor and diagnostics."""
        call: Callable[..., R] = self.function
        returned = call(**{name: inputs.get(name) for name in self.inputs}, **params)
        tensors = returned if isinstance(returned, tuple) else (returned,)
        by_role: dict[str, Tensor] = {}
        aux: dict[str, Tensor] = {}
        for (name, output), tensor in zip(self.outputs.items(), tensors, strict=True):
            if output.role == "aux":
                aux[name] = tensor.detach()
            else:
                by_role[output.role] = tensor
        return Terms(by_role["loss"], by_role.get("divisor"), by_role.get("mean_terms"), aux)

    def bounds(self, params: Params) -> Bounds:
        """Return the numbers between which, with both, the unreduced loss lies for these params."""
        return self.range(params) if callable(self.range) else self.range

    @cached_property
    def unreduced(self) -> Output:
        """The output that is the loss before any reduction."""
        return next(output for output in self.outputs.values() if output.role == "loss")

    @cached_property
    def empty_mean(self) -> float:
        """What the mean is where its divisor is zero."""
        return next((output.empty for output in self.outputs.values() if output.role == "divisor"), 0.0)

    @cached_property
    def rows(self) -> int:
        """How many rows of forms the inputs have."""
        return max(len(spec.forms) for spec in self.inputs.values())

    @cached_property
    def predictions(self) -> tuple[str, ...]:
        """The inputs that ``gradients: true`` differentiates."""
        return tuple(name for name, spec in self.inputs.items() if spec.role == "prediction")

    @cached_property
    def ranges(self) -> Mapping[str, SizeRange]:
        """The bounds declared for dimensions."""
        return {bounds.dim: bounds for bounds in self.requires if isinstance(bounds, SizeRange)}

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """What must hold across inputs and params."""
        return tuple(condition for condition in self.requires if isinstance(condition, Condition))

    @cached_property
    def conditional(self) -> bool:
        """Whether a form of an input or of the unreduced loss, or the work, depends on the params."""
        forms = (*self.unreduced.forms, *chain.from_iterable(self._conditional_forms))
        return any(form.when is not ALWAYS for form in forms) or not self._dims >= self._names_in_work

    def elements(self, shapes: Mapping[str, Shape], sizes: Sizes, params: Params) -> int:
        """Estimate the elements of work: those of the inputs, and of the patterns in ``work`` that have a size.

        One takes about as long as an element of an input does (50 ns of a core), and up to 100 bytes.
        """
        known = {**_sizes_in_params(self.params, params), **sizes}
        patterns = (expand(dims, known) for dims in self.work if names(dims) <= known.keys())
        return sum(map(prod, shapes.values())) + sum(map(prod, patterns))

    @cached_property
    def unknown_in_work(self) -> frozenset[str]:
        """The names in the work that are neither sizes nor params."""
        lists = {param.values.dims for param in self.params.values() if param.values}
        return self._names_in_work - self._dims - self.params.keys() - lists

    @cached_property
    def _dims(self) -> frozenset[str]:
        """The names of sizes in the forms of the inputs."""
        return frozenset[str]().union(*(names(f.dims) for spec in self.inputs.values() for f in spec.forms))

    @cached_property
    def _names_in_work(self) -> frozenset[str]:
        """The names in the patterns of the work."""
        return frozenset[str]().union(*map(names, self.work))

    def rows_for(self, params: Params) -> list[int]:
        """Return the rows of forms that are meant for these params."""
        forms = self._conditional_forms
        return [row for row in range(self.rows) if all(form.when.holds(params) for form in forms[row])]

    @cached_property
    def _conditional_forms(self) -> list[list[Form]]:
        """The forms of each row that are not meant for all params."""
        specs = self.inputs.values()
        rows = [[spec.form(row) for spec in specs] for row in range(self.rows)]
        return [[form for form in row if form.when is not ALWAYS] for row in rows]

    @cached_property
    def defaults(self) -> Params:
        """The params as they are when none is sent, required ones left out."""
        return {name: param.default for name, param in self.params.items() if param.default is not REQUIRED}


def loss(
    *,
    title: str,
    tasks: tuple[str, ...],
    aliases: tuple[str, ...] = (),
    differentiable: bool = True,
    exact_gradient: bool = True,
    fuse: Fuse = "stack",
    requires: tuple[Condition | SizeRange, ...] = (),
    work: str | tuple[str, ...] = (),
    range: Range = (None, None),
    unit: str | None = None,
    scales: Scales | float | None = None,
    example: Example | None = None,
) -> Callable[[Callable[P, R]], Loss[P, R]]:
    """Declare a function as a loss: positional arguments are its inputs, keyword-only ones its params.

    ``exact_gradient=False`` says that the gradient is, by design, not the derivative of the value. ``work`` are
    the dims of what is made beyond the inputs' own elements: names of sizes, and of params that are counts or
    lists of numbers.

    ``range`` bounds the unreduced loss in every dtype, once for all or for given params. ``unit`` is the reason
    why errors of this loss are relative to 1 rather than to its value, such as "one minus a ratio of areas".
    ``scales`` is the power with which the loss grows with all its floating inputs, or the whole law.

    Raises:
        TypeError: an argument or the result has no `Input` or `Output` annotation.
        ValueError: the docstring lacks a section, or does not describe exactly the arguments; ``work`` names
            what is no size, ``scales`` what is no input or param; ``range`` or ``unit`` says nothing.
    """

    def declare(function: Callable[P, R]) -> Loss[P, R]:
        hints = get_type_hints(function, include_extras=True)
        returns = hints.pop("return")
        prose = docstring.read(function.__doc__ or "")
        signature = inspect.signature(function).parameters
        if list(prose.arguments) != list(signature):
            raise ValueError(
                f"{function.__name__}: Args describes {list(prose.arguments)}, not {list(signature)}"
            )
        keyword_only = {name: p.default for name, p in signature.items() if p.kind is p.KEYWORD_ONLY}
        inputs = {
            name: replace(_required(hints[name], Input), optional=parameter.default is None)
            for name, parameter in signature.items()
            if name not in keyword_only
        }
        if len({len(spec.forms) for spec in inputs.values()} - {1}) > 1:
            raise TypeError(f"{function.__name__}: inputs with several forms need equally many")
        declared = Loss(
            name=function.__name__,
            title=title,
            tasks=tasks,
            aliases=aliases,
            differentiable=differentiable,
            exact_gradient=exact_gradient,
            fuse=fuse,
            requires=requires,
            work=(work,) if isinstance(work, str) else work,
            range=range,
            unit=unit,
            scales=_scales(scales, inputs),
            example=example or Example(),
            function=function,
            inputs=inputs,
            params={
                name: Param(hints[name], default, _find(hints[name], Values))
                for name, default in keyword_only.items()
            },
            outputs=_outputs(returns),
            prose=prose,
        )
        if unknown := declared.unknown_in_work:
            raise ValueError(f"{function.__name__}: its work names {sorted(unknown)}, no size and no param")
        _check_promises(declared)
        return declared

    return declare


def _scales(scales: Scales | float | None, inputs: Mapping[str, Input]) -> Scales | None:
    """Return the whole law of scaling, all floating inputs named where none is."""
    law = Scales(scales) if isinstance(scales, int | float) else scales
    if law is None or law.inputs:
        return law
    return replace(law, inputs=tuple(name for name, spec in inputs.items() if spec.floating))


def _check_promises(declared: Loss[..., Any]) -> None:
    """Refuse a range, unit or law of scaling that cannot be meant."""
    if not callable(declared.range):
        least, most = declared.range
        if least is not None and most is not None and least >= most:
            raise ValueError(f"{declared.name}: its range from {least} to {most} is empty")
    if declared.unit is not None and not declared.unit.strip():
        raise ValueError(f"{declared.name}: its unit needs a reason")
    if (law := declared.scales) is not None:
        unknown = {*law.inputs} - declared.inputs.keys() | {*law.along, *law.params} - declared.params.keys()
        if unknown:
            raise ValueError(f"{declared.name}: its scales name {sorted(unknown)}, no input and no param")


def _sizes_in_params(declared: Mapping[str, Param], params: Params) -> Sizes:
    """Return the params that are counts, and how long lists of numbers are, by the names that patterns use."""
    sizes: dict[str, Shape] = {}
    for name, value in params.items():
        values = declared[name].values
        if type(value) is int:
            sizes[name] = (value,)
        elif values is not None and isinstance(value, tuple):
            sizes[values.dims] = (len(cast(tuple[Any, ...], value)),)
    return sizes


def _find(annotation: Any, wanted: type[T]) -> T | None:
    """Return the first ``wanted`` among the metadata of an annotation, through unions with None."""
    for item in get_args(annotation):
        if isinstance(item, wanted):
            return item
        if get_args(item) and (found := _find(item, wanted)) is not None:
            return found
    return None


def _required(annotation: Any, wanted: type[T]) -> T:
    """Return the ``wanted`` among the metadata of an annotation, which must carry one."""
    if (found := _find(annotation, wanted)) is None:
        raise TypeError(f"{annotation} carries no {wanted.__name__}")
    return found


def _outputs(returns: Any) -> Mapping[str, Output]:
    """Read the outputs off a return type: one annotated tensor, or a NamedTuple of them."""
    fields = get_type_hints(returns, include_extras=True) if inspect.isclass(returns) else {"loss": returns}
    return {name: _required(annotation, Output) for name, annotation in fields.items()}
