"""Bind a request for a metric to its declaration: valid inputs, or all faults."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from service.catalogue.dims import Shape, Sizes, expand, match, match_empty, names, show_dims, show_sizes
from service.catalogue.domains import Facts, show_number
from service.catalogue.metric import AnyMetric
from service.catalogue.spec import Form, Params
from service.engine.call import Sent
from service.engine.check import first_of, lists, not_of_kind, of_kind
from service.engine.measure import Inputs
from service.problems import MOST_FAULTS, Fault, Invalid, pointer

Given = Sent | list[Any]
"""An input as read: a tensor, or a list with one value a sample."""


class Bound:
    """The valid inputs of a metric, with its sizes."""

    __slots__ = ("inputs", "redraw", "samples", "work")

    def __init__(self, inputs: Inputs, samples: int, work: int, redraw: int) -> None:
        self.inputs = inputs
        self.samples = samples
        self.work = work
        self.redraw = redraw


def bind_metric(
    metric: AnyMetric, given: Mapping[str, Given], params: Params, known: Sequence[Fault] = ()
) -> Bound:
    """Check the inputs of a metric; ``known`` are faults found in decoding.

    Raises:
        Invalid: with every fault that can be found before the others are corrected.
    """
    missing = [
        Fault(pointer("inputs", name), "missing", "Expected a value; got nothing.")
        for name, spec in metric.inputs.items()
        if not spec.optional and name not in given and not _has(known, name)
    ]
    if missing or known:
        raise Invalid(*known, *missing)
    rows = metric.rows_for(params) or [0]
    fits = [_fit(metric, given, row) for row in rows]
    # of equally wrong rows, one in which the first inputs fit: their number of dimensions tells what was meant
    order = {pointer("inputs", name): place for place, name in enumerate(metric.inputs)}
    row, (sizes, faults) = min(
        zip(rows, fits, strict=True),
        key=lambda found: (len(found[1][1]), [-order[fault.pointer] for fault in found[1][1]]),
    )
    if faults:
        raise Invalid(*_with_all_forms(metric, rows, faults))
    inputs, faults = _values(metric, given, row, sizes, params)
    # conditions of a metric may look at lists too
    facts = Facts(sizes, params, cast(dict[str, Tensor], inputs))
    faults = faults or _sizes(metric, sizes, row, given) or _conditions(metric, facts)
    faults = faults or lists(metric, params, sizes) or _flaws(metric, inputs, params)
    if faults:
        raise Invalid(*faults)
    shapes = {name: expand(metric.inputs[name].form(row).dims, sizes) for name in given}
    # sets that are not paired may differ in number
    samples = max(shape[0] for shape in shapes.values())
    own = {name: params[name] for name in metric.params}
    work, redraw = metric.elements(shapes, sizes, own), metric.elements_drawn(shapes, sizes, own)
    effort = metric.effort(inputs, params) if metric.effort else 0
    return Bound(inputs, samples, work + effort, redraw)


def _has(faults: Sequence[Fault], name: str) -> bool:
    """Return whether an input has a fault already."""
    whole, own = pointer("inputs"), pointer("inputs", name)
    return any(fault.pointer == whole or fault.pointer.startswith(own) for fault in faults)


def _fit(metric: AnyMetric, given: Mapping[str, Given], row: int) -> tuple[Sizes, list[Fault]]:
    """Match the shape of every input with its form in a row of forms."""
    sizes: Sizes = {}
    faults: list[Fault] = []
    # tensors of unknown rank come last, when the others have fixed the sizes
    for name in sorted(given, key=lambda name: _shape(given[name]) is None):
        shape, dims = _shape(given[name]), metric.inputs[name].form(row).dims
        matched = match_empty(dims, sizes, {}) if shape is None else match(dims, shape, sizes)
        if matched is None:
            got = [0] if shape is None else list(shape)
            expected = f"Expected dimensions {show_dims(dims)}{show_sizes(sizes)}; got {got}."
            faults.append(Fault(pointer("inputs", name), "shape", expected))
        else:
            sizes = matched
    return sizes, faults


def _shape(given: Given) -> Shape | None:
    """Return the shape of an input; None for a JSON ``[]``, which has any rank."""
    if isinstance(given, list):
        return (len(given),)
    return None if given.any_rank else tuple(given.tensor.shape)


def _with_all_forms(metric: AnyMetric, rows: Sequence[int], faults: Sequence[Fault]) -> list[Fault]:
    """List every form that the inputs at fault could have had."""
    found: list[Fault] = []
    for fault in faults:
        forms = metric.inputs[fault.pointer.rpartition("/")[2]].form
        first, *others = [show_dims(dims) for dims in dict.fromkeys(forms(row).dims for row in rows)]
        found.append(
            Fault(fault.pointer, fault.code, fault.detail.replace(first, " or ".join([first, *others]), 1))
        )
    return found


def _values(
    metric: AnyMetric, given: Mapping[str, Given], row: int, sizes: Sizes, params: Params
) -> tuple[dict[str, Tensor | list[Any]], list[Fault]]:
    """Convert inputs to the kinds of their forms, and check their domains."""
    inputs: dict[str, Tensor | list[Any]] = {}
    faults: list[Fault] = []
    for name, spec in metric.inputs.items():
        if isinstance(one := given.get(name), list):
            inputs[name] = one
        elif one is not None:
            form = spec.form(row)
            tensor = one.tensor.reshape(expand(form.dims, sizes)) if one.any_rank else one.tensor
            tensors = {known: value for known, value in inputs.items() if isinstance(value, Tensor)}
            if fault := _fault(name, one, tensor, form, Facts(sizes, params, tensors)):
                faults.append(fault)
            else:
                inputs[name] = of_kind(tensor, form.domain.kind)
    return inputs, faults


def _fault(name: str, sent: Sent, tensor: Tensor, form: Form, facts: Facts) -> Fault | None:
    """Return the fault of the first element that its form does not admit. NaN is never admitted."""
    kind, code, expected = form.domain.kind, "kind", "integers"
    if (wrong := not_of_kind(tensor, kind)) is None:
        code, expected = "domain", form.describe()
        values = of_kind(tensor, kind)
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        right = form.domain.admits(values, facts)
        wrong = first_of(~right | values.isnan())
    if wrong is None:
        return None
    at, place = (wrong, "") if sent.addressable else ((), f" at {list(wrong)}")
    got = f"{show_number(tensor[wrong])}{place}"
    return Fault(
        pointer("inputs", name, *at), code, f"Expected {expected}{_sizes_in(form, facts)}; got {got}."
    )


def _sizes_in(form: Form, facts: Facts) -> str:
    """Show the sizes that the description of a form mentions."""
    words = form.describe().replace(",", " ").split()
    return show_sizes({dim: size for dim, size in facts.sizes.items() if dim in words})


def _sizes(metric: AnyMetric, sizes: Sizes, row: int, given: Mapping[str, Given]) -> list[Fault]:
    """Check sizes against their declared bounds."""
    faults: list[Fault] = []
    for dim, bounds in metric.ranges.items():
        size = sizes.get(dim, (bounds.least,))[0]
        if size < bounds.least or (bounds.most is not None and size > bounds.most):
            word = f"at least {bounds.least}" if size < bounds.least else f"at most {bounds.most}"
            name = next(name for name in given if dim in names(metric.inputs[name].form(row).dims))
            faults.append(Fault(pointer("inputs", name), "size", f"Expected {dim} to be {word}; got {size}."))
    return faults


def _conditions(metric: AnyMetric, facts: Facts) -> list[Fault]:
    """Check conditions across inputs and params."""
    return [
        Fault(one.pointer, "condition", f"Expected {one.expected}; got {one.got(facts)}.")
        for one in metric.conditions
        if not one.holds(facts)
    ]


def _flaws(metric: AnyMetric, inputs: Inputs, params: Params) -> list[Fault]:
    """Return what the metric itself finds wrong with its inputs."""
    found = metric.check(inputs, params) if metric.check else iter(())
    return [
        Fault(pointer("inputs", *flaw.path), "value", f"Expected {flaw.expected}; got {flaw.got}.")
        for flaw in islice(found, MOST_FAULTS)
    ]
