"""Turn a typed torch function into a `Loss`: the one declaration from which all else derives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, ParamSpec, TypeVar

from torch import Tensor

from service.catalogue.declaration import REQUIRED, Declaration, Param, read
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
R = TypeVar("R", bound=Tensor | tuple[Tensor, ...])


class Terms(NamedTuple):
    """What a loss function returned, by role."""

    loss: Tensor
    divisor: Tensor | None
    mean_terms: Tensor | None
    aux: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Loss(Declaration[P, R]):
    """A declared loss.

    ``fuses`` says that several calls are evaluated as one under vmap, ``on_cpu`` that calls are evaluated on the CPU.
    """

    differentiable: bool
    exact_gradient: bool
    fuses: bool
    on_cpu: bool
    range: Range
    unit: str | None
    scales: Scales | None

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
    def predictions(self) -> tuple[str, ...]:
        """The inputs that ``gradients: true`` differentiates."""
        return tuple(name for name, spec in self.inputs.items() if spec.role == "prediction")

    @cached_property
    def conditional(self) -> bool:
        """Whether a form of an input or of the unreduced loss, or the work, depends on the params."""
        return super().conditional or any(form.when is not ALWAYS for form in self.unreduced.forms)


def loss(
    *,
    title: str,
    tasks: tuple[str, ...],
    aliases: tuple[str, ...] = (),
    differentiable: bool = True,
    exact_gradient: bool = True,
    fuses: bool = True,
    on_cpu: bool = False,
    requires: tuple[Condition | SizeRange, ...] = (),
    work: str | tuple[str, ...] = (),
    range: Range = (None, None),
    unit: str | None = None,
    scales: Scales | float | None = None,
    example: Example | None = None,
) -> Callable[[Callable[P, R]], Loss[P, R]]:
    """Declare a function as a loss: positional arguments are its inputs, keyword-only ones its params.

    ``exact_gradient=False`` says that the gradient is, by design, not the derivative of the value;
    ``fuses=False`` that the function cannot run under vmap, so that calls are evaluated one by one; ``on_cpu=True``
    that most of the work is done on the CPU whatever the device, so that another one is not asked. ``work`` are
    the dims of what is made beyond the inputs' own elements: names of sizes, of inputs (``"2 logits"``), and of params
    that are counts or lists of numbers. A unit is at most 110 ns of a core and 22 bytes at the peak, in float32 with the
    gradients by all inputs: a number among the dims (``"512 iterations"``) is the factor of what costs more,
    ``max_iter/16`` of what costs less.

    ``range`` bounds the unreduced loss in every dtype, once for all or for given params. ``unit`` is the reason
    why errors of this loss are relative to 1 rather than to its value, such as "one minus a ratio of areas".
    ``scales`` is the power with which the loss grows with all its floating inputs, or the whole law.

    Raises:
        TypeError: an argument or the result has no `Input` or `Output` annotation.
        ValueError: the docstring lacks a section, or does not describe exactly the arguments; ``work`` names
            what is no size, ``scales`` what is no input or param; ``range`` or ``unit`` says nothing.
    """

    def declare(function: Callable[P, R]) -> Loss[P, R]:
        signature = read(function)
        declared = Loss(
            name=function.__name__,
            title=title,
            tasks=tasks,
            aliases=aliases,
            differentiable=differentiable,
            exact_gradient=exact_gradient,
            fuses=fuses,
            on_cpu=on_cpu,
            requires=requires,
            work=(work,) if isinstance(work, str) else work,
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
