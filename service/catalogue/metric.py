"""The declaration of a metric: statistics of each sample (rows), and a finish that turns any set of rows into a value.

Slices, intervals, values a sample, comparisons and merging follow from these two, for every metric alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, ParamSpec, TypeVar

from service.catalogue.declaration import Declaration, signature_of, sizes_in_params
from service.catalogue.dims import Shape, Sizes, expand, names, split
from service.catalogue.spec import Condition, Example, Form, Input, Params, Role, SizeRange
from service.catalogue.table import Array, Columns, Table

P = ParamSpec("P")
R = TypeVar("R", bound=Columns)
Like = Literal["sklearn", "torchmetrics", "coco", "voc2007", "voc2012", "trec_eval"]
"""A peer whose conventions a request can choose; it changes only metrics whose `likes` name it."""


@dataclass(frozen=True, slots=True)
class Undefined:
    """A number that does not exist, and the reason: it is written as null, never as an invented 0 or 1."""

    reason: str


Number = float | Undefined
Value = Any
"""A number or `Undefined`, or these in dicts and lists, in the shape that the catalogue documents; arrays are lists."""
Weights = Array
"""The weight of each row, float64 and >= 0: sample weights, times the counts of a bootstrap."""
Finish = Callable[[Table, Params], Callable[[Weights], Value]]
"""Prepares rows once, and returns a function from weights to the value, which a bootstrap calls hundreds of times."""
Each = Callable[[Table, Params], Array]
"""The value of each row alone, float64; NaN where there is none."""
LeftOut = Callable[[Table, Params], Mapping[str, str]]
"""The reasons for parts without a value that an average leaves out, by path: queries with nothing relevant."""
Effort = Callable[[Mapping[str, Any], Params], int]
"""The work of lists, in units of `Declaration.elements`, beyond one for each sample: texts have no sizes."""
EffortDrawn = Callable[[Mapping[str, Any], Params], tuple[int, int]]
"""The same to finish lists once more: what grows with the samples, and what each result takes besides."""
Interval = Callable[[Table, Params, Weights, float], tuple[float, float] | None]
"""An analytic interval at a level, for a metric that is one number; None where it does not apply."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with the values of an input, and where: ``path`` leads to it from ``inputs``.

    ``expected`` and ``got`` finish the sentence "Expected ...; got ...".
    """

    path: tuple[str | int, ...]
    expected: str
    got: str


Check = Callable[[Mapping[str, Any], Params], Iterator[Flaw]]
"""Finds what is wrong with inputs beyond the types, domains and sizes of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Input):
    """An input that is a list with one JSON value a sample; ``element`` is its Python type, validated strictly."""

    element: Any


def Listing(role: Role, element: Any, dims: str = "N") -> Listed:
    """Describe an input with one JSON value a sample: a text, a list of tags, the objects in an image."""
    return Listed(role, (Form(dims),), element=element)


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric(Declaration[P, R]):
    """A declared metric. Its function computes the rows.

    ``likes``: peers whose conventions differ from ours; ``finish`` finds the chosen one, or None, as the param ``like``, and
    the function too if it has an argument of that name. ``signed``: params that a signature always names.
    ``unit``: the column whose rows a bootstrap draws together, such as the query of a document; None if rows are independent.
    ``higher_is_better`` is None for what is no score, such as a confusion matrix. ``check`` sees inputs that are otherwise valid.
    ``redraw``: the work of one call of what `finish` returns, as ``work`` is declared; patterns without ``N`` count for each
    result, whatever its rows.
    """

    finish: Finish
    higher_is_better: bool | None
    check: Check | None = None
    each: Each | None = None
    interval: Interval | None = None
    left_out: LeftOut | None = None
    effort: Effort | None = None
    effort_drawn: EffortDrawn | None = None
    likes: tuple[Like, ...] = ()
    signed: tuple[str, ...] = ()
    unit: str | None = None
    redraw: tuple[str, ...] = ()

    @cached_property
    def unpaired(self) -> bool:
        """Whether inputs may differ in their number of samples."""
        firsts = {split(form.dims)[0] for spec in self.inputs.values() for form in spec.forms}
        return len(firsts) > 1

    def elements_drawn(self, shapes: Mapping[str, Shape], sizes: Sizes, params: Params) -> tuple[int, int]:
        """Estimate the elements of work to finish rows once more: what grows with the rows, and what each result takes."""
        known = {**sizes_in_params(self.params, params), **shapes, **sizes}
        grown = fixed = 0
        for dims in self.redraw:
            if (used := names(dims)) <= known.keys():
                work = prod(expand(dims, known))
                grown, fixed = (
                    (grown, fixed + work)
                    if used.isdisjoint({"N", "M", *self.inputs})
                    else (grown + work, fixed)
                )
        return grown, fixed

    def rows_of(self, inputs: Mapping[str, Any], params: Params) -> Columns:
        """Call the function by name."""
        call: Callable[..., R] = self.function
        known = {name: params[name] for name in self.params}
        if "like" in self.prose.arguments:
            known["like"] = params["like"]
        return call(**{name: inputs.get(name) for name in self.inputs}, **known)

    def signature(self, params: Params) -> str:
        """Return what two results must share to be comparable: name, params, conventions, version.

        Params appear if they are `signed` or differ from their defaults.
        """
        changed = (
            f"{name}:{_short(value)}"
            for name, value in params.items()
            if name != "like" and (name in self.signed or value != self.params[name].default)
        )
        like = params.get("like") if params.get("like") in self.likes else None
        return "|".join((self.name, *changed, f"like:{like}" if like else "undefined:null", "v1"))


AnyMetric = Metric[..., Any]


def metric(
    *,
    title: str,
    tasks: tuple[str, ...],
    finish: Finish,
    check: Check | None = None,
    each: Each | None = None,
    interval: Interval | None = None,
    left_out: LeftOut | None = None,
    effort: Effort | None = None,
    effort_drawn: EffortDrawn | None = None,
    likes: Sequence[Like] = (),
    signed: tuple[str, ...] = (),
    unit: str | None = None,
    higher_is_better: bool | None = True,
    aliases: tuple[str, ...] = (),
    keywords: tuple[str, ...] = (),
    requires: tuple[Condition | SizeRange, ...] = (),
    work: str | tuple[str, ...] = (),
    redraw: str | tuple[str, ...] = "N/4",
    example: Example | None = None,
) -> Callable[[Callable[P, R]], Metric[P, R]]:
    """Declare a function as a metric: positional arguments are its inputs, keyword-only ones its params.

    The function gets tensors on one device, in the dtypes sent (or lists, for a `Listing`), and returns columns with a row a
    sample. A row must depend on its own sample only, to the bit, whatever other samples come with it. It computes in float64,
    or compares without arithmetic. Params of the same name mean the same in all metrics.

    ``finish`` gets rows in the order of their ids, and gives the same to the bit for any order and partition in which they came.

    Raises:
        TypeError: an argument has no `Input` annotation.
        ValueError: the docstring lacks a section, or does not describe exactly the arguments; ``work`` has an unknown name.
    """

    def declare(function: Callable[P, R]) -> Metric[P, R]:
        signature = signature_of(function, outputs=False)
        # a request has it beside its params
        params = {name: param for name, param in signature.params.items() if name != "like"}
        signature = signature._replace(params=params)
        return Metric(
            name=function.__name__,
            title=title,
            tasks=tasks,
            aliases=aliases,
            keywords=keywords,
            requires=requires,
            work=(work,) if isinstance(work, str) else work,
            overhead=(),
            example=example or Example(),
            function=function,
            finish=finish,
            check=check,
            each=each,
            interval=interval,
            left_out=left_out,
            effort=effort,
            effort_drawn=effort_drawn,
            likes=tuple(likes),
            signed=signed,
            unit=unit,
            higher_is_better=higher_is_better,
            redraw=(redraw,) if isinstance(redraw, str) else redraw,
            **signature._asdict(),
        )

    return declare


def _short(value: Any) -> str:
    """Return a param as a signature shows it.

    >>> _short(1.0), _short(True), _short((0.5, 2))
    ('1', 'true', '0.5,2')
    """
    if isinstance(value, tuple | list):
        return ",".join(map(_short, value))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
