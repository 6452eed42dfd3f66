"""Turn a typed torch function into a `Loss`, the declaration from which everything else is derived."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, ParamSpec, TypeVar

from torch import Tensor

from service.catalogue.declaration import REQUIRED, Declaration, Param, signature_of
from service.catalogue.dims import Sizes, names, split
from service.catalogue.spec import (
    ALWAYS,
    Bounds,
    Condition,
    Example,
    Input,
    Output,
    Params,
    Range,
    Scales,
    SizeRange,
)

__all__ = ["REQUIRED", "Loss", "Param", "Terms", "loss"]
P = ParamSpec("P")
R = TypeVar("R", bound=Tensor | tuple[Tensor | None, ...])


class Terms(NamedTuple):
    """The outputs of a loss function, by role."""

    loss: Tensor
    divisor: Tensor | None
    mean_terms: Tensor | None
    aux: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Loss(Declaration[P, R]):
    """A declared loss.

    ``joins`` names the dim along which like calls are joined to be evaluated as one; None if vmap does that. ``on_cpu``:
    calls are evaluated on the CPU. ``compares_samples``: elements of the loss depend on other samples. ``coupled``: they
    depend on inputs at several places.
    """

    differentiable: bool
    exact_gradient: bool
    joins: str | None
    on_cpu: bool
    compares_samples: bool
    coupled: bool
    twice: tuple[str, ...]
    range: Range
    unit: str | None
    scales: Scales | None

    def terms(self, inputs: Mapping[str, Tensor], params: Params) -> Terms:
        """Call the function by name and sort its outputs into loss, divisor and diagnostics."""
        call: Callable[..., R] = self.function
        returned = call(**{name: inputs.get(name) for name in self.inputs}, **params)
        tensors = returned if isinstance(returned, tuple) else (returned,)
        by_role: dict[str, Tensor] = {}
        aux: dict[str, Tensor] = {}
        for (name, output), tensor in zip(self.outputs.items(), tensors, strict=True):
            if tensor is None:
                continue
            if output.role == "aux":
                aux[name] = tensor.detach()
            else:
                by_role[output.role] = tensor
        return Terms(by_role["loss"], by_role.get("divisor"), by_role.get("mean_terms"), aux)

    def bounds(self, params: Params) -> Bounds:
        """Return the bounds of the unreduced loss for these params, both inclusive."""
        return self.range(params) if callable(self.range) else self.range

    @cached_property
    def unreduced(self) -> Output:
        """The output that is the loss before any reduction."""
        return next(output for output in self.outputs.values() if output.role == "loss")

    @cached_property
    def batch_dim(self) -> str | None:
        """The dim along which a batch can be split into shards that add up to it: the first of the unreduced loss.

        None if the elements of the loss depend on other samples, if it is one number for the whole batch, or if an
        input has the dim twice, or a multiple of it, as a matrix of all pairs.
        """
        dim = next(iter(split(self.unreduced.forms[0].dims)), "")
        patterns = [
            self.unreduced.forms[0].dims,
            *(f.dims for spec in self.inputs.values() for f in spec.forms),
        ]
        whole = all(split(dims).count(dim) == (dim in names(dims)) for dims in patterns)
        return None if self.compares_samples or not dim or not whole else dim

    @cached_property
    def not_adding_up(self) -> tuple[str, ...]:
        """The conditions on params under which shards do not add up, although there is a `batch_dim`."""
        there = self.batch_dim
        texts = {f.when.text for f in self.unreduced.forms if there and there not in split(f.dims)[:1]} - {""}
        # a condition that holds another one as its part is met by fewer params
        return tuple(sorted(t for t in texts if not any(o != t and o in t for o in texts)))

    @cached_property
    def averages_itself(self) -> bool:
        """Whether the mean is over the elements of the unreduced loss, and not over other terms."""
        return all(output.role != "mean_terms" for output in self.outputs.values())

    def adds_up(self, params: Params) -> bool:
        """Return whether shards of a batch, split along its `batch_dim`, add up to it with these params."""
        form = next(form for form in self.unreduced.forms if form.when.holds(params))
        return self.batch_dim in split(form.dims)[:1]

    @cached_property
    def empty_mean(self) -> float:
        """The mean if its divisor is zero."""
        return next((output.empty for output in self.outputs.values() if output.role == "divisor"), 0.0)

    @cached_property
    def cuts(self) -> Mapping[str, str]:
        """The input of counts that ends the last axis of a diagnostic, for each that has one."""
        return {name: output.upto for name, output in self.outputs.items() if output.upto}

    @cached_property
    def predictions(self) -> tuple[str, ...]:
        """The inputs that ``gradients: true`` differentiates."""
        return tuple(name for name, spec in self.inputs.items() if spec.role == "prediction")

    def elementwise(self, name: str, row: int, sizes: Sizes, params: Params) -> bool:
        """Return whether each element of an input moves the element of the loss at its place, and no other."""
        same = self.inputs[name].form(row).dims == self.unreduced.dims(sizes, params)
        return same and self.differentiable and not (self.coupled or self.compares_samples)

    @cached_property
    def conditional(self) -> bool:
        """Whether a form of an input or of the unreduced loss, or the work, depends on the params."""
        return super().conditional or any(form.when is not ALWAYS for form in self.unreduced.forms)


def loss(
    *,
    title: str,
    tasks: tuple[str, ...],
    aliases: tuple[str, ...] = (),
    keywords: tuple[str, ...] = (),
    differentiable: bool = True,
    exact_gradient: bool = True,
    joins: str | None = None,
    on_cpu: bool = False,
    compares_samples: bool = False,
    coupled: bool = False,
    twice: str | tuple[str, ...] = (),
    requires: tuple[Condition | SizeRange, ...] = (),
    work: str | tuple[str, ...] = (),
    overhead: str | tuple[str, ...] = (),
    range: Range = (None, None),
    unit: str | None = None,
    scales: Scales | float | None = None,
    example: Example | None = None,
) -> Callable[[Callable[P, R]], Loss[P, R]]:
    """Declare a function as a loss: positional arguments are its inputs, keyword-only ones its params.

    ``keywords``: words people search for, the problems and models that the loss is known for.
    ``exact_gradient=False``: the gradient differs from the derivative of the value, by design. ``joins="N"``: the
    function cannot run under vmap, but its samples, along N in the inputs and first in what it returns, do not depend
    on each other. ``on_cpu=True``: most of its work runs on the CPU whatever the device, so its calls do too.
    ``compares_samples=True``: each element of the unreduced loss depends on other samples, such as the negatives in its batch,
    so that a batch cannot be split into shards.
    ``coupled=True``: an element of the loss depends on several elements of inputs that have its dims, such as neighbours.

    ``work``: dims of the tensors made beyond the inputs' own elements, from names of sizes, of inputs (``"2 logits"``),
    and of params that are counts or lists of numbers. A unit is at most 110 ns of a core and 22 bytes at the peak, in
    float32 with gradients for all inputs; a number among the dims (``"512 iterations"``) is a factor for work that costs
    more, ``max_iter/16`` for work that costs less. ``overhead``: the cost of
    torch's calls in a loop, which calls that are evaluated together share. ``twice``: the work of second derivatives along one
    direction, beyond a multiple of all of that.

    ``range``: bounds of the unreduced loss in every dtype, fixed or a function of the params. ``unit``: the reason why
    errors of this loss are relative to 1 rather than to its value, such as "one minus a ratio of areas". ``scales``: the
    power with which the loss grows with all its floating inputs, or a `Scales`.

    Raises:
        TypeError: an argument or the result has no `Input` or `Output` annotation.
        ValueError: the docstring lacks a section, or does not describe exactly the arguments; ``work`` or ``scales`` has an
            unknown name; ``range`` or ``unit`` is empty.
    """

    def declare(function: Callable[P, R]) -> Loss[P, R]:
        signature = signature_of(function)
        declared = Loss(
            name=function.__name__,
            title=title,
            tasks=tasks,
            aliases=aliases,
            keywords=keywords,
            differentiable=differentiable,
            exact_gradient=exact_gradient,
            joins=joins,
            on_cpu=on_cpu,
            compares_samples=compares_samples,
            coupled=coupled,
            twice=(twice,) if isinstance(twice, str) else twice,
            requires=requires,
            work=(work,) if isinstance(work, str) else work,
            overhead=(overhead,) if isinstance(overhead, str) else overhead,
            range=range,
            unit=unit,
            scales=_scales(scales, signature.inputs),
            example=example or Example(),
            function=function,
            **signature._asdict(),
        )
        _check_promises(declared)
        return declared

    return declare


def _scales(scales: Scales | float | None, inputs: Mapping[str, Input]) -> Scales | None:
    """Return the scaling law, with all floating inputs if it names none."""
    law = Scales(scales) if isinstance(scales, int | float) else scales
    if law is None or law.inputs:
        return law
    return replace(law, inputs=tuple(name for name, spec in inputs.items() if spec.floating))


def _check_promises(declared: Loss[..., Any]) -> None:
    """Refuse a range, unit or scaling law that makes no sense."""
    if not callable(declared.range):
        least, most = declared.range
        if least is not None and most is not None and least >= most:
            raise ValueError(f"{declared.name}: its range from {least} to {most} is empty")
    if declared.unit is not None and not declared.unit.strip():
        raise ValueError(f"{declared.name}: its unit needs a reason")
    if (law := declared.scales) is not None:
        unknown = {*law.inputs} - declared.inputs.keys() | {*law.along, *law.params} - declared.params.keys()
        if unknown:
            raise ValueError(f"{declared.name}: its scales name {sorted(unknown)}, neither inputs nor params")
