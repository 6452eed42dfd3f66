"""Plan compositions: several terms over shared inputs, whose shapes and work are known before any value is read."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

import torch

from service.catalogue.dims import Shape
from service.catalogue.registry import AnyLoss
from service.engine import check
from service.engine.call import HALF, Reduction, Sent
from service.engine.expression import (
    CHARACTER_BYTES,
    FUNCTIONS,
    BadExpression,
    Expression,
    Expressions,
    Traced,
)
from service.engine.fit import Fit, fit
from service.engine.kept import Kept
from service.problems import MOST_FAULTS, Fault, Invalid, TooLarge, pointer, quoted, under

PerTerm = Literal["values", "norms", "gradients"]
TERM_WORK = 1 << 10
"""Units of work of a term besides its loss and expressions: checks, and a pass over its gradients."""
TOGETHER = 4
"""Most characters of all expressions together, in units of the most of one: each operation is traced and kept."""
MOST_BYTES = 16 << 20
"""Bytes of plans that are kept, and of those that differ in a batch."""
PART_BYTES = 4096
"""Most bytes of a plan for an input, a term, or an input of a term."""
MOST_LISTED = 20
"""Most names that a message lists."""


class LossTerm(NamedTuple):
    """A loss of the catalogue as a term: its inputs are expressions, its sample weight is the name of an input."""

    loss: AnyLoss
    inputs: tuple[tuple[str, str], ...]
    params: tuple[tuple[str, object], ...]
    reduction: Reduction = "mean"
    sample_weight: str | None = None
    divide_by: float | None = None
    weight: float = 1.0


class ExpressionTerm(NamedTuple):
    """An expression that yields one number as a term."""

    expression: str
    weight: float = 1.0


Term = LossTerm | ExpressionTerm


class Composition(NamedTuple):
    """Everything about a composition except its tensors."""

    terms: tuple[tuple[str, Term], ...]
    total: str | None = None
    gradients: bool | tuple[str, ...] = True
    per_term: PerTerm = "values"
    dtype: torch.dtype = torch.float32


class Given(NamedTuple):
    """The form of an input as sent; None as shape for a JSON ``[]``, which has any rank."""

    shape: Shape | None
    dtype: torch.dtype


Forms = tuple[tuple[str, Given], ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """A term that fits its inputs.

    ``bare`` are the loss's inputs that are inputs of the composition as they are, ``built`` the expressions of the others.
    An expression's term is built too, under the empty name. ``sloped`` are those of both on which gradients depend.
    """

    name: str
    term: Term
    bare: Mapping[str, str]
    built: Mapping[str, Expression]
    fitted: Fit | None
    sloped: tuple[str, ...] = ()

    def sources(self, key: str) -> frozenset[str]:
        """Return the inputs of the composition that an input of the loss is differentiable in."""
        if key in self.bare:
            return frozenset((self.bare[key],))
        return self.built[key].names - self.built[key].indices

    def rounds(self, key: str) -> bool:
        """Return whether values of an input of the loss may be rounded to a half type: they are no marks or indices."""
        return (
            self.fitted is not None and not self.fitted.form(key).domain.exact and self.fitted.floating(key)
        )


@dataclass(frozen=True, eq=False)
class CompositionPlan:
    """Everything about a composition except the values of its inputs; those with the same plan can be computed as one.

    ``dtypes`` are those in which expressions take the inputs, ``leaves`` the inputs that are differentiated.
    """

    composition: Composition
    terms: Sequence[Planned]
    total: Expression | None
    dtypes: Mapping[str, torch.dtype]
    leaves: tuple[str, ...]
    work: int

    @property
    def listed(self) -> bool:
        """Whether a param is a list, which may have any length."""
        losses = [term for _, term in self.composition.terms if isinstance(term, LossTerm)]
        return any(isinstance(param, tuple) for term in losses for _, param in term.params)

    @cached_property
    def indexing(self) -> frozenset[str]:
        """The inputs that expressions use as an index."""
        return frozenset(name for one in _expressions(self.terms, self.total) for name in one.indexing)

    @cached_property
    def expressed(self) -> Sequence[str]:
        """The inputs that expressions use."""
        used = {name for expression in _expressions(self.terms, self.total) for name in expression.names}
        return [name for name in self.dtypes if name in used]


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that computes for a requested one."""
    return torch.float32 if dtype in HALF else dtype


def forms(inputs: Mapping[str, Sent]) -> Forms:
    """Return the forms of the inputs sent."""
    return tuple(
        [
            (name, Given(None if sent.any_rank else tuple(sent.tensor.shape), sent.tensor.dtype))
            for name, sent in inputs.items()
        ]
    )


class Planner:
    """Plans compositions of at most so much work, and keeps the plans used last: training sends the same with every step."""

    def __init__(self, expressions: Expressions, most_work: int) -> None:
        self.expressions = expressions
        self.most_work = most_work
        self._kept = Kept[Hashable, CompositionPlan](MOST_BYTES)

    @property
    def most_characters(self) -> int:
        """The most characters of all expressions of a composition, and of those of a batch that differ."""
        return TOGETHER * self.expressions.most

    def plan(self, composition: Composition, inputs: Forms) -> CompositionPlan:
        """Return the plan of a composition; those of one kind that follow each other share it.

        Raises:
            Invalid: its terms do not fit its inputs; lists every fault that their shapes show.
            TooLarge: its work is over the limit.
        """
        key = composition, inputs
        if (found := self._kept.find(key)) is None:
            found = _Planning(composition, dict(inputs), self).plan()
            if not found.listed:
                self._kept.keep(key, found, plan_size(composition, inputs))
        return found


class BatchPlanner(Planner):
    """Plans the compositions of a batch: each once, as long as those that differ are within a bound in bytes."""

    def __init__(self, planner: Planner) -> None:
        super().__init__(planner.expressions, planner.most_work)
        self._planner = planner
        self._found: dict[Hashable, CompositionPlan | Invalid | TooLarge] = {}
        self._bytes = 0

    def plan(self, composition: Composition, inputs: Forms) -> CompositionPlan:
        """Return the plan of a composition.

        Raises:
            Invalid: its terms do not fit its inputs.
            TooLarge: its work, or the bytes of all that differ, are over the limit.
        """
        key = composition, inputs
        if (found := self._found.get(key)) is None:
            size = plan_size(composition, inputs)
            if self._bytes + size > MOST_BYTES:
                raise TooLarge(
                    f"Expected a batch whose different compositions take at most {MOST_BYTES} bytes once planned; got more."
                )
            self._bytes += size
            try:
                found = self._planner.plan(composition, inputs)
            except (Invalid, TooLarge) as problem:
                # the traceback would keep the document alive
                found = problem.with_traceback(None)
            self._found[key] = found
        if isinstance(found, TooLarge):
            raise TooLarge(found.detail, *found.faults)
        if isinstance(found, Invalid):
            raise Invalid(*found.faults)
        return found


def plan_size(composition: Composition, inputs: Forms) -> int:
    """Return the most bytes of a plan, apart from lists."""
    sources = [] if composition.total is None else [composition.total]
    for _, term in composition.terms:
        sources += (
            [term.expression] if isinstance(term, ExpressionTerm) else [source for _, source in term.inputs]
        )
    parts = len(inputs) + len(composition.terms) + len(sources)
    return PART_BYTES * parts + CHARACTER_BYTES * sum(map(len, sources))


class _Planning:
    """Plans one composition, and collects its faults."""

    def __init__(self, composition: Composition, inputs: Mapping[str, Given], planner: Planner) -> None:
        self.composition = composition
        self.inputs = inputs
        self.planner = planner
        self.faults: list[Fault] = []
        self.floating = arithmetic(composition.dtype)
        self.dtypes = {name: self._taken(one.dtype) for name, one in inputs.items()}
        self._traces: dict[str, tuple[Mapping[str, torch.dtype], Traced]] = {}

    def plan(self) -> CompositionPlan:
        """Return the plan."""
        terms, total = self.composition.terms, self.composition.total
        self._check_names()
        parsed = [self._parsed(name, term) for name, term in terms]
        summed = None if total is None else self._parse(total, ("total",), [name for name, _ in terms])
        self._refuse()
        self._find_integers(parsed)
        planned = [self._planned(*term, found) for term, found in zip(terms, parsed, strict=True)]
        self._refuse()
        if summed is not None:
            self._check_scalar(summed, ("total",))
        self._check_used(planned, summed)
        leaves = self._leaves(planned, summed)
        self._refuse()
        work = self._work(planned)
        found = [replace(one, sloped=self._sloped(one, leaves)) for one in planned]
        return CompositionPlan(self.composition, found, summed, self.dtypes, leaves, work)

    def _refuse(self) -> None:
        """Report the faults found so far, if there are any."""
        if self.faults:
            raise Invalid(*self.faults)

    def _fault(self, where: Sequence[str | int], code: str, expected: str, got: str) -> None:
        self.faults.append(Fault(pointer(*where), code, f"Expected {expected}; got {got}."))

    def _taken(self, sent: torch.dtype) -> torch.dtype:
        """Return the dtype in which expressions take an input."""
        return self.floating if sent.is_floating_point else sent if sent is torch.bool else torch.int64

    def _check_names(self) -> None:
        """Refuse names that an expression cannot tell apart."""
        terms = [name for name, _ in self.composition.terms]
        for kind, names in (("inputs", [*self.inputs]), ("terms", terms)):
            for name in names:
                if name in FUNCTIONS:
                    self._fault((kind, name), "name", "a name that is not that of a function", quoted(name))
                elif kind == "terms" and name in self.inputs:
                    self._fault((kind, name), "name", "a name that is not that of an input", quoted(name))

    def _parsed(self, name: str, term: Term) -> dict[str, Expression]:
        """Parse the expressions of a term; faults are reported, and expressions that have one left out."""
        if isinstance(term, ExpressionTerm):
            sources = {"": (term.expression, ("terms", name, "expression"))}
        else:
            sources = {key: (source, ("terms", name, "inputs", key)) for key, source in term.inputs}
            weight = term.sample_weight
            if weight is not None and weight not in self.inputs:
                self._fault(("terms", name, "sample_weight"), "unknown", self._names(()), quoted(weight))
        found = {key: self._parse(*source) for key, source in sources.items()}
        return {key: expression for key, expression in found.items() if expression is not None}

    def _parse(self, source: str, where: Sequence[str], terms: Sequence[str] = ()) -> Expression | None:
        """Parse an expression over the inputs and some terms; None if it has a fault, which is reported."""
        try:
            found = self.planner.expressions.parse(source)
        except BadExpression as wrong:
            self.faults.append(expression_fault(wrong, where))
            return None
        unknown = [name for name in found.columns if name not in self.inputs and name not in terms]
        for name in islice(unknown, MOST_FAULTS):
            detail = f"Expected {self._names(terms)}; got {quoted(name)}."
            self.faults.append(Fault(pointer(*where), "unknown", detail, column=found.columns[name]))
        return None if unknown else found

    def _names(self, terms: Sequence[str]) -> str:
        """Describe the names that an expression may use."""
        names = [*self.inputs, *terms]
        listed = ", ".join([quoted(name) for name in names[:MOST_LISTED]])
        more = ", ..." if len(names) > MOST_LISTED else ""
        return f"the name of {'a term or an input' if terms else 'an input'}, one of {listed}{more}"

    def _find_integers(self, parsed: Sequence[Mapping[str, Expression]]) -> None:
        """Find which inputs are integers or marks: JSON has only numbers, so the losses that take them decide."""
        for (name, term), found in zip(self.composition.terms, parsed, strict=True):
            if not isinstance(term, LossTerm):
                continue
            fitted = self._fitted(name, term, found)
            for key, expression in found.items():
                if expression.bare and fitted and key in fitted.shapes and not fitted.floating(key):
                    integral = fitted.form(key).domain.kind == "int"
                    self.dtypes[expression.bare] = torch.int64 if integral else torch.bool
        self._refuse()

    def _fitted(self, name: str, term: LossTerm, found: Mapping[str, Expression]) -> Fit | None:
        """Match the inputs of a term with its loss; None if one has a fault, which is reported."""
        shapes: list[tuple[str, Shape | None]] = []
        for key, expression in found.items():
            if expression.bare:
                shapes.append((key, self.inputs[expression.bare].shape))
            elif traced := self._traced(expression, ("terms", name, "inputs", key)):
                shapes.append((key, traced.shape))
        return fit(term.loss, tuple(shapes), dict(term.params)) if len(shapes) == len(found) else None

    def _traced(self, expression: Expression, where: Sequence[str]) -> Traced | None:
        """Find the shape, dtype and work of an expression's result; None if it has a fault, which is reported."""
        dtypes = {name: self.dtypes.get(name, self.floating) for name in expression.names}
        known = self._traces.get(expression.source)
        if known is not None and known[0] == dtypes:
            return known[1]
        # terms are numbers
        shapes = {name: self.inputs[name].shape if name in self.inputs else () for name in dtypes}
        metas = {
            name: torch.empty(shape if shape is not None else (0,), dtype=dtypes[name], device="meta")
            for name, shape in shapes.items()
        }
        try:
            traced = expression.trace(metas, self.planner.most_work, self.floating)
        except BadExpression as wrong:
            self.faults.append(expression_fault(wrong, where))
            return None
        except TooLarge as large:
            raise TooLarge(large.detail, *under(large.faults, *where)) from None
        self._traces[expression.source] = dtypes, traced
        return traced

    def _planned(self, name: str, term: Term, found: Mapping[str, Expression]) -> Planned:
        """Plan a term; faults are reported."""
        fitted = None
        if isinstance(term, ExpressionTerm):
            self._check_scalar(found[""], ("terms", name, "expression"))
        elif fitted := self._fitted(name, term, found):
            faults = [*fitted.faults, *fitted.size_faults]
            faults += check.lists(term.loss, dict(term.params), fitted.sizes)
            self.faults += under(faults, "terms", name)
        bare = {key: one.bare for key, one in found.items() if one.bare and key}
        built = {key: one for key, one in found.items() if key not in bare}
        return Planned(name, term, bare, built, fitted)

    def _check_scalar(self, expression: Expression, where: Sequence[str]) -> None:
        """Refuse an expression that does not yield one number."""
        if (traced := self._traced(expression, where)) is None:
            return
        if traced.shape != ():
            self._fault(
                where, "shape", "an expression that yields one number", f"one of shape {[*traced.shape]}"
            )
        elif traced.dtype is torch.bool:
            self._fault(
                where, "kind", "an expression that yields one number", "one that yields true or false"
            )

    def _check_used(self, planned: Sequence[Planned], total: Expression | None) -> None:
        """Refuse inputs that nothing uses."""
        used = {name for expression in _expressions(planned, total) for name in expression.names}
        for one in planned:
            used |= {*one.bare.values()}
            if isinstance(one.term, LossTerm):
                used.add(one.term.sample_weight or "")
        for name in islice((name for name in self.inputs if name not in used), MOST_FAULTS):
            self._fault(
                ("inputs", name),
                "unused",
                "an input that a term or the total uses",
                f"{quoted(name)}, unused",
            )

    def _leaves(self, planned: Sequence[Planned], total: Expression | None) -> tuple[str, ...]:
        """Resolve the ``gradients`` field to names of inputs."""
        usual = {
            name
            for expression in _expressions(planned, total)
            for name in expression.names - expression.indices
        }
        targets = set[str]()
        for one in planned:
            if isinstance(one.term, LossTerm) and one.term.loss.differentiable:
                predictions = one.term.loss.predictions
                usual |= {name for key, name in one.bare.items() if key in predictions}
                targets |= {*one.bare.values()}
        floating = [name for name in self.inputs if self.dtypes[name].is_floating_point]
        asked = self.composition.gradients
        if isinstance(asked, bool):
            return tuple(name for name in floating if asked and name in usual)
        possible = [name for name in floating if name in usual | targets]
        wrong = ((place, name) for place, name in enumerate(asked) if name not in possible)
        expected = f"one of {', '.join(map(quoted, possible[:MOST_LISTED]))}" if possible else "no name"
        for place, name in islice(wrong, MOST_FAULTS):
            self._fault(("gradients", place), "gradient", expected, quoted(name))
        return tuple(dict.fromkeys(asked))

    def _sloped(self, one: Planned, leaves: Sequence[str]) -> tuple[str, ...]:
        """Return the inputs of a term on which gradients depend."""
        if not isinstance(one.term, LossTerm):
            return ("",) if one.sources("").intersection(leaves) else ()
        sloped = () if one.fitted is None else one.fitted.differentiable
        keys = [key for key in (*one.bare, *one.built) if key in sloped]
        return tuple(key for key in keys if one.sources(key).intersection(leaves))

    def _work(self, planned: Sequence[Planned]) -> int:
        """Estimate the work of all terms.

        Raises:
            TooLarge: it is over the limit.
        """
        traced = sum(found.work for _, found in self._traces.values())
        work = traced + sum(TERM_WORK + (0 if one.fitted is None else one.fitted.work) for one in planned)
        units = 2 * work if self.floating is torch.float64 else work
        if units > (most := self.planner.most_work):
            detail = (
                f"Expected at most {most} elements of work (LOSSD_MAX_WORK); "
                f"got terms that are estimated to take {units}."
            )
            raise TooLarge(detail, Fault("/terms", "work", detail))
        return work


def _expressions(planned: Sequence[Planned], total: Expression | None) -> Iterator[Expression]:
    """Yield the expressions of a composition that are more than the name of a loss's input."""
    for one in planned:
        yield from one.built.values()
    if total is not None:
        yield total


def expression_fault(wrong: BadExpression, where: Sequence[str]) -> Fault:
    """Return the fault of an expression."""
    return Fault(pointer(*where), wrong.code, wrong.detail, column=wrong.column)
