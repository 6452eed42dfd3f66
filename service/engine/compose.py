"""Compute compositions: expressions on the host, losses as calls on the device, and one backward pass through all.

A term is a call like any other, differentiated with respect to its own inputs. The chain rule then needs one pass over the
expressions that built these inputs, and one over the total, which is a function of a few numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from service.catalogue.rounds import Abandoned, go_on
from service.engine.backward import chained
from service.engine.bind import bind, bind_alike
from service.engine.call import CPU, HALF, Request, Sent
from service.engine.composition import (
    CompositionPlan,
    ExpressionTerm,
    LossTerm,
    Planned,
    arithmetic,
    expression_fault,
)
from service.engine.expression import BadExpression, Expression
from service.engine.fuse import Results
from service.engine.plan import cast
from service.engine.reduce import spread
from service.engine.stack import Evaluations, Part, stacked, with_tensors
from service.problems import Fault, Invalid, under

Tensors = Mapping[str, Tensor]
Compute = Callable[[Part], Results]
"""Computes a call, or several stacked ones."""
Place = tuple[str, ...]
"""Where a request has an expression."""


class CompositionCall(NamedTuple):
    """A composition with its tensors as sent."""

    plan: CompositionPlan
    inputs: Mapping[str, Sent]
    grad_output: float = 1.0


class TermResult(NamedTuple):
    """The results of a term, before its weight. ``gradients`` are by the composition's inputs that it uses."""

    value: Tensor
    divisor: Tensor | None
    aux: Tensors
    gradients: Tensors


class Composed(NamedTuple):
    """The results of a composition; of several, along the first axis of each tensor."""

    value: Tensor
    gradients: Tensors
    terms: Mapping[str, TermResult]
    device: torch.device = CPU


def compose(asked: CompositionCall, compute: Compute) -> Composed:
    """Compute one composition.

    Raises:
        Invalid: values of a term's inputs, which only its expressions show, are outside their domains.
        TooLarge: memory ran out.
    """
    return _Run([asked], compute).result()


def compose_alike(asked: Sequence[CompositionCall], compute: Compute) -> Sequence[Composed | Exception]:
    """Compute compositions of one plan as one; failures stay separate. The caller bounds their work together."""
    if len(asked) > 1:
        try:
            return _each(_Run(asked, compute).result(), len(asked))
        except Abandoned:
            raise
        except Exception:
            # the fault may lie with one of them: compute each alone
            pass
    return [_attempt(one, compute) for one in asked]


def _attempt(asked: CompositionCall, compute: Compute) -> Composed | Exception:
    """Compute one composition; return the exception if it raises one, unless nobody waits any longer."""
    try:
        go_on()
        return compose(asked, compute)
    except Abandoned:
        raise
    except Exception as error:
        return error


class ApartError(Exception):
    """Compositions cannot be computed as one: a term's results differ in shape, or one has a fault."""


class _Found(NamedTuple):
    """A term's results, and the derivatives of its value with respect to its own inputs."""

    value: Tensor
    slopes: Tensors
    divisor: Tensor | None = None
    aux: Tensors = MappingProxyType({})
    device: torch.device = CPU


class _Run:
    """Computes compositions of one plan: one, or several whose tensors are stacked on a new first axis."""

    def __init__(self, asked: Sequence[CompositionCall], compute: Compute) -> None:
        self.asked = asked
        self.plan = asked[0].plan
        self.compute = compute
        self.axes = int(len(asked) > 1)
        self.dtype = arithmetic(self.plan.composition.dtype)
        self.raw = {
            name: self._stacked([one.inputs[name].tensor for one in asked]) for name in self.plan.dtypes
        }
        self.taken = {name: self._take(name) for name in self.plan.expressed}
        self.built = self._build()
        each = torch.tensor([one.grad_output for one in asked], dtype=self.dtype)
        self.upstream = each if self.axes else each[0]
        # the derivative of the default total with respect to each term
        self.factors = {name: self.upstream * term.weight for name, term in self.plan.composition.terms}
        self.known = self._known()

    def _known(self) -> Tensors:
        """Return the derivative of the value with respect to each term if it is known before the terms are.

        Then the terms' own slopes have it, which saves a pass over each; unless they are asked for without it.
        """
        composition = self.plan.composition
        return self.factors if composition.total is None and composition.per_term == "values" else {}

    def result(self) -> Composed:
        """Return the results."""
        terms, per_term = self.plan.terms, self.plan.composition.per_term != "values"
        found = self._terms()
        value, factors, direct = self._total({name: one.value for name, one in found.items()})
        slopes = self._slopes(terms, found, None if self.known else factors, keep=per_term)
        for name, slope in direct.items():
            _add(slopes, name, slope)
        for name in self.plan.leaves:
            if name not in slopes:
                slopes[name] = torch.zeros_like(self.raw[name], dtype=self.dtype)
        return Composed(
            self._rounded(value),
            {name: self._rounded(slopes[name]) for name in self.plan.leaves},
            {
                one.name: TermResult(
                    self._rounded(found[one.name].value),
                    found[one.name].divisor,
                    found[one.name].aux,
                    self._slopes([one], found, None, keep=True) if per_term else {},
                )
                for one in terms
            },
            next((one.device for one in found.values() if one.device != CPU), CPU),
        )

    def _rounded(self, tensor: Tensor) -> Tensor:
        """Round a result to the requested dtype."""
        return tensor.detach().to(self.plan.composition.dtype)

    def _stacked(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensors of all compositions as one."""
        return torch.stack([*tensors]) if self.axes else tensors[0]

    def _take(self, name: str) -> Tensor:
        """Return an input as expressions take it."""
        dtype, raw = self.plan.dtypes[name], self.raw[name]
        if not dtype.is_floating_point:
            return raw.to(dtype)
        if name in self.plan.indexing:
            # rounding would change an index
            taken = raw.to(torch.promote_types(raw.dtype, self.dtype))
        else:
            taken = cast(raw, self.plan.composition.dtype)
        return taken.detach().requires_grad_() if name in self.plan.leaves else taken

    def _build(self) -> dict[Place, Tensor]:
        """Evaluate the expressions of all terms."""
        places = {_place(one, key): built for one in self.plan.terms for key, built in one.built.items()}
        return dict(zip(places, self._evaluated(places, self.taken), strict=True)) if places else {}

    def _evaluated(self, places: Mapping[Place, Expression], inputs: Tensors) -> Sequence[Tensor]:
        """Evaluate expressions.

        Raises:
            Invalid: one has an index that is out of range.
        """
        if not self.axes:
            return [_checked(place, expression, inputs, self.dtype) for place, expression in places.items()]
        for place, expression in places.items():
            if expression.indexes:
                for item in range(len(self.asked)):
                    with torch.no_grad():
                        _checked(
                            place, expression, {name: one[item] for name, one in inputs.items()}, self.dtype
                        )

        def evaluate(item: Tensor, inputs: Tensors) -> list[Tensor]:
            return [expression.evaluate(inputs, self.dtype) for expression in places.values()]

        return torch.func.vmap(evaluate)(torch.arange(len(self.asked)), inputs)

    def _terms(self) -> Mapping[str, _Found]:
        """Compute all terms.

        Raises:
            Invalid: values are outside the domains of a loss's inputs; lists the faults of all terms.
        """
        parts, faults = dict[str, Part](), list[Fault]()
        for one in self.plan.terms:
            if isinstance(one.term, LossTerm):
                try:
                    part = self._part(one, one.term)
                    slope = self.known.get(one.name)
                    parts[one.name] = (
                        part if slope is None else with_tensors(part, part.inputs, grad_output=slope)
                    )
                except Invalid as invalid:
                    faults += under(invalid.faults, "terms", one.name)
        if faults:
            raise Invalid(*faults)
        return {one.name: self._term(one, parts) for one in self.plan.terms}

    def _term(self, one: Planned, parts: Mapping[str, Part]) -> _Found:
        """Compute one term."""
        go_on()
        if isinstance(one.term, ExpressionTerm):
            value = self.built[_place(one, "")].to(self.dtype)
            return _Found(value.detach(), {"": self.known.get(one.name, torch.ones_like(value))})
        found = self.compute(parts[one.name])
        if not isinstance(found, Evaluations):
            if self.axes:
                raise ApartError
            [found] = found
        if isinstance(found, Invalid):
            raise Invalid(*under(found.faults, "terms", one.name))
        if isinstance(found, Exception):
            raise found
        return _Found(found.value, found.gradients, found.divisor, found.aux, found.device)

    def _part(self, one: Planned, term: LossTerm) -> Part:
        """Return the calls of a term.

        Raises:
            Invalid: they are not valid.
        """
        inputs = {key: self._sent(one, key) for key in (*one.bare, *one.built)}
        first = self._request(one, term, inputs, 0)
        if not self.axes:
            return bind(first)
        stacks = {key: sent.tensor for key, sent in inputs.items()}
        if (stack := bind_alike(first, stacks)) is not None:
            return stack
        return stacked([bind(self._request(one, term, inputs, place)) for place in range(len(self.asked))])

    def _sent(self, one: Planned, key: str) -> Sent:
        """Return an input of a term's loss; if it is a half type, rounded unless its values are marks."""
        if key not in one.bare:
            return Sent(self.built[_place(one, key)].detach())
        dtype, tensor = self.plan.composition.dtype, self.raw[one.bare[key]]
        rounds = dtype in HALF and one.rounds(key)
        return Sent(
            tensor.to(dtype) if rounds else tensor, any_rank=self.asked[0].inputs[one.bare[key]].any_rank
        )

    def _request(self, one: Planned, term: LossTerm, inputs: Mapping[str, Sent], place: int) -> Request:
        """Return the request for a term of one composition."""
        if self.axes:
            inputs = {key: sent._replace(tensor=sent.tensor[place]) for key, sent in inputs.items()}
        weight = None if term.sample_weight is None else self.asked[place].inputs[term.sample_weight]
        return Request(
            loss=term.loss,
            inputs=inputs,
            params=dict(term.params),
            gradients=one.sloped,
            reduction=term.reduction,
            sample_weight=None if weight is None else weight._replace(addressable=False),
            divide_by=term.divide_by,
            dtype=self.dtype,
        )

    def _total(self, values: Tensors) -> tuple[Tensor, Tensors, Tensors]:
        """Return the total, and its derivatives with respect to the terms and, directly, to the inputs."""
        if self.plan.total is None:
            weights = {name: term.weight for name, term in self.plan.composition.terms}
            weighted = [values[name] * weight for name, weight in weights.items()]
            return sum(weighted[1:], weighted[0]), self.factors, {}
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        given = {**self.taken, **leaves}
        used = {name: given[name] for name in self.plan.total.names}
        [value] = self._evaluated({("total",): self.plan.total}, used)
        value = value.to(self.dtype)
        found = chained(
            [value], [self.upstream], {name: one for name, one in used.items() if one.requires_grad}
        )
        factors = {name: found.get(name, torch.zeros_like(one)) for name, one in leaves.items()}
        return value, factors, {name: one for name, one in found.items() if name not in leaves}

    def _slopes(
        self, terms: Sequence[Planned], found: Mapping[str, _Found], factors: Tensors | None, *, keep: bool
    ) -> dict[str, Tensor]:
        """Return the derivative of some terms with respect to the inputs differentiated.

        Each term is taken times its factor, if there are any. ``keep`` keeps the graph for another pass.
        """
        slopes, outputs, upstream = dict[str, Tensor](), list[Tensor](), list[Tensor]()
        for one in terms:
            for key in one.sloped:
                slope = found[one.name].slopes[key]
                if factors is not None:
                    slope = slope * spread(factors[one.name], slope)
                if key in one.bare:
                    name = one.bare[key]
                    _add(slopes, name, slope.reshape(self.raw[name].shape))
                else:
                    outputs.append(self.built[_place(one, key)])
                    upstream.append(slope)
        leaves = {name: self.taken[name] for name in self.plan.leaves if name in self.taken}
        for name, slope in chained(outputs, upstream, leaves, keep=keep).items():
            _add(slopes, name, slope)
        return slopes


def _add(slopes: dict[str, Tensor], name: str, slope: Tensor) -> None:
    """Add a derivative to those with respect to an input."""
    slopes[name] = slopes[name] + slope if name in slopes else slope


def _place(one: Planned, key: str) -> Place:
    """Return where the expression of a term is, or the one of an input of its loss."""
    return ("terms", one.name, "inputs", key) if key else ("terms", one.name, "expression")


def _checked(place: Place, expression: Expression, inputs: Tensors, dtype: torch.dtype) -> Tensor:
    """Evaluate an expression, checking its indices.

    Raises:
        Invalid: an index is out of range.
    """
    try:
        return expression.checked(inputs, dtype)
    except BadExpression as wrong:
        raise Invalid(expression_fault(wrong, place)) from None


def _each(found: Composed, count: int) -> Sequence[Composed]:
    """Return the results of each of several compositions."""
    return [
        Composed(
            found.value[place],
            {name: one[place] for name, one in found.gradients.items()},
            {name: _of_term(term, place) for name, term in found.terms.items()},
            found.device,
        )
        for place in range(count)
    ]


def _of_term(term: TermResult, place: int) -> TermResult:
    """Return the results of a term in one of several compositions."""
    return TermResult(
        term.value[place],
        None if term.divisor is None else term.divisor[place],
        {name: one[place] for name, one in term.aux.items()},
        {name: one[place] for name, one in term.gradients.items()},
    )
