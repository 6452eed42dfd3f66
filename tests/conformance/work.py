"""Measure the cost of declared work: peak bytes, operations and seconds of a core, for all growing sizes.

``python -m tests.conformance.work [name …]`` prints the dearest calls of each loss, as multiples of the bounds in
`service.engine.cost`: what is over 1 is declared too low.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, get_args

import torch
from annotated_types import Le
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from service.catalogue.declare import Param
from service.catalogue.dims import Shape, Sizes, expand, match
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs
from service.catalogue.spec import Params
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.engine.cost import UNIT_BYTES, UNIT_S
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Invalid
from tests.conformance.cases import Variant, variants

UNITS = 1 << 17
"""Units of work that a grown call has at least."""
MOST = 1 << 16
"""How much larger than drawn a size or a count is made at most."""
OPERATION_S = 5e-6
"""Seconds of a core that an operator on few elements takes, its share of Python and autograd included: 3e-6 s."""
PRINTED = 3
"""Calls of a loss that are printed for each bound."""


@dataclass(frozen=True)
class Grown:
    """A call that was drawn, with some of its sizes and counts made larger."""

    variant: Variant
    axes: tuple[str, ...]
    call: Call

    def __str__(self) -> str:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.call.inputs.items()}
        defaults = self.call.loss.defaults
        params = {name: value for name, value in self.call.params.items() if value != defaults.get(name)}
        return f"{self.call.loss.name} {shapes} {params}"


@dataclass(frozen=True)
class Taken:
    """The cost of an evaluation: peak bytes of tensors, including inputs, and calls of operators."""

    bytes: int
    operations: int


def all_grown(loss: AnyLoss, units: int = UNITS) -> Iterator[Grown]:
    """Yield the calls of a loss with each axis grown, in its first variant also with two and three."""
    for number, variant in enumerate(variants(loss)):
        drawn = drawn_sizes(variant)
        axes = [*(name for name in drawn if drawn[name]), *_counts(variant)]
        for together in (1, 2, 3) if number == 0 else (1,):
            for some in combinations(axes, together):
                if (call := _grow(variant, drawn, some, units)) is not None:
                    yield Grown(variant, some, call)


def _counts(variant: Variant) -> list[str]:
    """Return the params named in the work; other integers do not add to it."""
    return sorted(variant.loss.names_in_work & variant.params.keys())


def _grow(variant: Variant, drawn: Sizes, axes: tuple[str, ...], units: int) -> Call | None:
    """Return a call of at least some units, or the largest that is admitted."""
    factor = 2
    while factor < MOST and declared_work(variant, *_larger(variant, drawn, axes, factor)) < units:
        factor *= 2
    while factor > 1:
        try:
            return _call(variant, *_larger(variant, drawn, axes, factor))
        except Invalid:
            # a size that a list among the params fixes, or that has a bound
            factor //= 2
    return None


def _larger(
    variant: Variant, drawn: Sizes, axes: tuple[str, ...], factor: int
) -> tuple[Mapping[str, Shape], Params]:
    """Multiply sizes, of several the last one, and counts."""
    sizes = {n: (*size[:-1], factor * size[-1]) if n in axes else size for n, size in drawn.items()}
    params = {
        n: min(max(1, value) * factor, _most(variant.loss.params[n])) if n in axes else value
        for n, value in variant.params.items()
    }
    return sizes, params


def _most(count: Param) -> int:
    """Return the largest value that the type of a count admits."""
    bounds = [bound.le for bound in get_args(count.annotation) if isinstance(bound, Le)]
    return min((bound for bound in bounds if isinstance(bound, int)), default=MOST**2)


def declared_work(variant: Variant, sizes: Sizes, params: Params) -> int:
    """Return the declared work of a call of these sizes."""
    specs = variant.loss.inputs.items()
    sent = {name: spec.form(variant.row) for name, spec in specs if variant.optional or not spec.optional}
    shapes = {name: expand(form.dims, sizes) for name, form in sent.items()}
    return variant.loss.elements(shapes, sizes, params)


def _call(variant: Variant, sizes: Sizes, params: Params) -> Call:
    """Draw a call in float32 that asks for the gradient by every floating input."""
    loss = variant.loss
    inputs = draw_inputs(loss, params, sizes=sizes, row=variant.row, optional=variant.optional)
    sent = {name: Sent(tensor) for name, tensor in inputs.items()}
    floating = tuple(n for n in sent if loss.inputs[n].form(variant.row).domain.kind == "float")
    return bind(
        Request(loss=loss, inputs=sent, params=params, gradients=floating if loss.differentiable else False)
    )


def with_tangents(call: Call) -> Call:
    """Return a call that also asks for second derivatives along all that it is differentiated by."""
    sent = {name: Sent(tensor) for name, tensor in call.inputs.items()}
    ones = {name: Sent(torch.ones_like(call.inputs[name])) for name in call.gradients_of}
    return bind(
        Request(loss=call.loss, inputs=sent, params=call.params, gradients=call.gradients_of, tangents=ones)
    )


def drawn_sizes(variant: Variant) -> Sizes:
    """Return the sizes of the drawn call."""
    sizes: Sizes = {}
    for name, tensor in variant.call().inputs.items():
        found = match(variant.loss.inputs[name].form(variant.row).dims, tensor.shape, sizes)
        assert found is not None
        sizes = found
    return sizes


def measure(call: Call) -> Taken:
    """Evaluate a call, and count: the same each time, however busy the machine is."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, _Operations() as made:
        evaluate(call)
    assert recorded.profiler is not None
    results: Any = recorded.profiler.kineto_results
    taken = most = 0
    for event in results.events():
        if event.name() == "[memory]":
            taken += event.nbytes()
            most = max(most, taken)
    sent = sum(tensor.nbytes for tensor in call.inputs.values())
    return Taken(sent + most, made.count)


class _Operations(TorchDispatchMode):
    """Counts the operators of torch that are called, by autograd too."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def seconds(call: Call) -> float:
    """Return the time of a core that the evaluation of a call takes, the better of two."""
    times: list[float] = []
    for _ in range(2):
        start = time.thread_time()
        evaluate(call)
        times.append(time.thread_time() - start)
    return min(times)


def main(names: list[str]) -> None:
    """Print the dearest calls of each loss."""
    torch.set_num_threads(1)
    for name in names or CATALOGUE:
        lines: dict[str, list[tuple[float, str]]] = {"bytes": [], "seconds": []}
        for grown in all_grown(CATALOGUE[name]):
            work, small = grown.call.work, seconds(grown.variant.call())
            lines["bytes"].append((measure(grown.call).bytes / work / UNIT_BYTES, str(grown)))
            lines["seconds"].append(((seconds(grown.call) - small) / work / UNIT_S, str(grown)))
        for bound, found in lines.items():
            for ratio, line in sorted(found, reverse=True)[:PRINTED]:
                print(f"{ratio:.2f} {bound} {line}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
