"""Declarations read from typed functions: inputs, params, outputs, prose. A `Loss` is one kind of declaration."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast, get_args, get_type_hints

from service.catalogue import docstring
from service.catalogue.dims import Shape, Sizes, expand, names
from service.catalogue.spec import ALWAYS, Condition, Example, Form, Input, Output, Params, SizeRange, Values

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

REQUIRED = inspect.Parameter.empty
"""The default of a required param."""


@dataclass(frozen=True, slots=True)
class Param:
    """A hyper-parameter: its annotated type (with annotated-types constraints) and its default.

    ``values`` is set if it is a list of numbers whose length depends on the inputs.
    """

    annotation: Any
    default: Any
    values: Values | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Declaration(Generic[P, R]):
    """A declared function. It can still be called: ``huber(predictions, targets, delta=2.0)`` type-checks."""

    name: str
    title: str
    tasks: tuple[str, ...]
    aliases: tuple[str, ...]
    keywords: tuple[str, ...]
    requires: tuple[Condition | SizeRange, ...]
    work: tuple[str, ...]
    overhead: tuple[str, ...]
    example: Example
    function: Callable[P, R]
    inputs: Mapping[str, Input]
    params: Mapping[str, Param]
    outputs: Mapping[str, Output]
    prose: docstring.Prose

    def __post_init__(self) -> None:
        """Check the names in ``work``.

        Raises:
            ValueError: one is neither a size nor an input nor a param.
        """
        lists = {param.values.dims for param in self.params.values() if param.values}
        if unknown := self.names_in_work - self.dims - self.inputs.keys() - self.params.keys() - lists:
            raise ValueError(f"{self.name}: its work names {sorted(unknown)}, no size, input or param")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @cached_property
    def rows(self) -> int:
        """The number of rows of forms."""
        return max(len(spec.forms) for spec in self.inputs.values())

    @cached_property
    def ranges(self) -> Mapping[str, SizeRange]:
        """The bounds declared for dimensions."""
        return {bounds.dim: bounds for bounds in self.requires if isinstance(bounds, SizeRange)}

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions across inputs and params."""
        return tuple(condition for condition in self.requires if isinstance(condition, Condition))

    @cached_property
    def conditional(self) -> bool:
        """Whether a form of an input, or the work, depends on the params."""
        return any(self.conditional_forms) or not self.dims | self.inputs.keys() >= self.names_in_work

    def elements(self, shapes: Mapping[str, Shape], sizes: Sizes, params: Params) -> int:
        """Estimate the elements of work: those of the inputs, and of ``work`` and ``overhead``.

        An element takes at most `UNIT_S` of a core and `UNIT_BYTES`, see `service.engine.cost`; float64 takes twice the bytes.
        """
        patterns = (*self.work, *self.overhead)
        return sum(map(prod, shapes.values())) + self.elements_of(patterns, shapes, sizes, params)

    def elements_of(
        self, patterns: tuple[str, ...], shapes: Mapping[str, Shape], sizes: Sizes, params: Params
    ) -> int:
        """Estimate the elements of patterns like those of the ``work``."""
        return _elements(patterns, {**sizes_in_params(self.params, params), **shapes, **sizes})

    def elements_once(self, sizes: Sizes, params: Params) -> int:
        """Estimate the elements of work that like calls share if they are evaluated as one."""
        return _elements(self.overhead, {**sizes_in_params(self.params, params), **sizes})

    @cached_property
    def dims(self) -> frozenset[str]:
        """The names of sizes in the forms of the inputs."""
        return frozenset[str]().union(*(names(f.dims) for spec in self.inputs.values() for f in spec.forms))

    @cached_property
    def names_in_work(self) -> frozenset[str]:
        """The names in the patterns of the work."""
        return frozenset[str]().union(*map(names, (*self.work, *self.overhead)))

    def rows_for(self, params: Params) -> list[int]:
        """Return the rows of forms that apply to these params."""
        forms = self.conditional_forms
        return [row for row in range(self.rows) if all(form.when.holds(params) for form in forms[row])]

    @cached_property
    def conditional_forms(self) -> list[list[Form]]:
        """The forms in each row that apply to some params only."""
        specs = self.inputs.values()
        rows = [[spec.form(row) for spec in specs] for row in range(self.rows)]
        return [[form for form in row if form.when is not ALWAYS] for row in rows]

    @cached_property
    def defaults(self) -> Params:
        """The default params, without required ones."""
        return {name: param.default for name, param in self.params.items() if param.default is not REQUIRED}


AnyDeclaration = Declaration[..., Any]


class Signature(NamedTuple):
    """The contents of a function's signature and docstring."""

    inputs: Mapping[str, Input]
    params: Mapping[str, Param]
    outputs: Mapping[str, Output]
    prose: docstring.Prose


def signature_of(function: Callable[..., Any], *, outputs: bool = True) -> Signature:
    """Read a function: its positional arguments are inputs, its keyword-only ones params; its result is `Output`s or not.

    Raises:
        TypeError: an argument or the result has no `Input` or `Output` annotation.
        ValueError: the docstring lacks a section, or does not describe exactly the arguments.
    """
    hints = get_type_hints(function, include_extras=True)
    returns = hints.pop("return")
    prose = docstring.prose_of(function.__doc__ or "")
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
    params = {
        name: Param(hints[name], default, _find(hints[name], Values))
        for name, default in keyword_only.items()
    }
    return Signature(inputs, params, _outputs(returns) if outputs else {}, prose)


def _elements(patterns: tuple[str, ...], known: Sizes) -> int:
    """Return the sum of the elements of the patterns whose names all have a size."""
    return sum(prod(expand(dims, known)) for dims in patterns if names(dims) <= known.keys())


def sizes_in_params(declared: Mapping[str, Param], params: Params) -> Sizes:
    """Return params that are counts, and the lengths of list params, by the names that patterns use."""
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
        raise TypeError(f"{annotation} has no {wanted.__name__}")
    return found


def _outputs(returns: Any) -> Mapping[str, Output]:
    """Read the outputs from a return type: an annotated tensor, or a NamedTuple of them."""
    fields = get_type_hints(returns, include_extras=True) if inspect.isclass(returns) else {"loss": returns}
    # the name of a field cannot be a keyword: class_ is the output class
    return {name.removesuffix("_"): _required(annotation, Output) for name, annotation in fields.items()}
