"""Bind a request for a metric to its declaration: valid inputs, or all faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from service.catalogue.dims import Shape, Sizes, expand, match, names
from service.catalogue.domains import Facts, show_number
from service.catalogue.metric import AnyMetric
from service.catalogue.spec import Form, Params
from service.engine.call import Sent
from service.engine.check import conditions, first_of, lists, mentioned_sizes, not_of_kind, of_kind
from service.engine.fit import match_shapes, with_all_forms
from service.engine.measure import Inputs
from service.problems import MOST_FAULTS, Fault, Invalid, pointer

Given = Sent | list[Any]
"""An input as read: a tensor, or a list with one value a sample."""


FINISH = 4
"""The work to finish rows, in that of finishing them once more: sorting them, coding their classes."""
RESULT = 600
"""The work of any result, however few its rows: 20 to 100 us of numpy's calls, measured over all metrics."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The valid inputs of a metric, with its sizes.

    ``work`` is that of the rows. To finish all rows once more takes ``redraw``, and each result ``fixed`` besides.
    """

    inputs: Inputs
    samples: int
    work: int
    redraw: int
    fixed: int

    def work_of(self, draws: int, columns: int, slices: int) -> int:
        """Estimate the work of a request with as many replicates, columns of slices and slices."""
        rows = FINISH * self.samples + (FINISH + draws) * self.redraw
        return self.work + (1 + columns) * rows + (1 + slices) * (FINISH + draws) * (RESULT + self.fixed)


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
    row, sizes, faults = _fitting(metric, given, params)
    whole = not (missing or faults or any(map(_of_inputs, known)))
    inputs, wrong = _values(metric, given, row, sizes, params, whole=whole)
    faults += wrong
    if whole and not faults:
        # conditions of a metric may look at lists too
        facts = Facts(sizes, params, cast(dict[str, Tensor], inputs))
        faults = _sizes(metric, sizes, row, given) or conditions(metric, facts)
        faults = faults or lists(metric, params, sizes) or _flaws(metric, inputs, params)
    if found := [*known, *missing, *faults]:
        raise Invalid(*found)
    shapes = {name: expand(metric.inputs[name].form(row).dims, sizes) for name in given}
    # sets that are not paired may differ in number
    samples = max(shape[0] for shape in shapes.values())
    own = {name: params[name] for name in metric.params}
    if own.get("num_classes", 0) is None:
        own["num_classes"] = _classes(inputs)
    effort = metric.effort(inputs, params) if metric.effort else 0
    work = metric.elements(shapes, sizes, own) + effort
    redraw, fixed = metric.elements_drawn(shapes, sizes, own)
    more, besides = metric.effort_drawn(inputs, params) if metric.effort_drawn else (0, 0)
    return Bound(inputs, samples, work, redraw + more, fixed + besides)


def samples_of(given: Mapping[str, Given]) -> dict[str, int]:
    """Return the number of samples in each input that has any dimension."""
    shapes = {name: _shape(one) for name, one in given.items()}
    return {name: 0 if shape is None else shape[0] for name, shape in shapes.items() if shape != ()}


def _of_inputs(fault: Fault) -> bool:
    """Return whether a fault is about inputs or params, without which others cannot be checked together."""
    return fault.pointer.startswith(("/inputs", "/params"))


def _classes(inputs: Inputs) -> int:
    """Return the number of classes up to the largest."""
    whole = [one for one in inputs.values() if isinstance(one, Tensor) and one.dtype == torch.int64]
    return max((int(one.max()) + 1 for one in whole if one.numel()), default=0)


def _fitting(metric: AnyMetric, given: Mapping[str, Given], params: Params) -> tuple[int, Sizes, list[Fault]]:
    """Return the row of forms that the inputs fit, or the one that they fit best, with the faults of shapes."""
    rows = metric.rows_for(params) or [0]
    least = {dim: bounds.least for dim, bounds in metric.ranges.items()}
    if type(classes := params.get("num_classes")) is int:
        least["C"] = classes
    shapes = tuple((name, _shape(one)) for name, one in given.items())
    fits = [match_shapes(metric, shapes, row, least) for row in rows]
    # of equally wrong rows, one in which the first inputs fit: their number of dimensions tells what was meant
    order = {pointer("inputs", name): place for place, name in enumerate(metric.inputs)}
    row, (sizes, _, faults) = min(
        zip(rows, fits, strict=True),
        key=lambda found: (len(found[1][2]), [-order[fault.pointer] for fault in found[1][2]]),
    )
    return row, sizes, [with_all_forms(metric, rows, fault) for fault in faults]


def _has(faults: Sequence[Fault], name: str) -> bool:
    """Return whether an input has a fault already."""
    whole, own = pointer("inputs"), pointer("inputs", name)
    return any(fault.pointer == whole or fault.pointer.startswith(own) for fault in faults)


def _shape(given: Given) -> Shape | None:
    """Return the shape of an input; None for a JSON ``[]``, which has any rank."""
    if isinstance(given, list):
        return (len(given),)
    return None if given.any_rank else tuple(given.tensor.shape)


def _values(
    metric: AnyMetric, given: Mapping[str, Given], row: int, sizes: Sizes, params: Params, *, whole: bool
) -> tuple[dict[str, Tensor | list[Any]], list[Fault]]:
    """Convert inputs to the kinds of their forms, and check their domains.

    Unless the inputs are ``whole``, with all of them there and of the right shape, a domain may lack what it refers to.
    """
    inputs: dict[str, Tensor | list[Any]] = {}
    faults: list[Fault] = []
    for name, spec in metric.inputs.items():
        if isinstance(one := given.get(name), list):
            inputs[name] = one
        elif one is not None:
            form = spec.form(row)
            if not whole and match(form.dims, tuple(one.tensor.shape), {}) is None:
                # it has a fault already
                continue
            tensor = one.tensor.reshape(expand(form.dims, sizes)) if one.any_rank else one.tensor
            tensors = {known: value for known, value in inputs.items() if isinstance(value, Tensor)}
            try:
                fault = _fault(name, one, tensor, form, Facts(sizes, params, tensors))
            except KeyError:
                if whole:
                    raise
                continue
            if fault:
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
    finite = code == "domain" and bool(tensor[wrong].isfinite())
    got = (form.domain.found(tensor, wrong) if finite else show_number(tensor[wrong])) + place
    expected += mentioned_sizes(form, facts.sizes)
    return Fault(pointer("inputs", name, *at), code, f"Expected {expected}; got {got}.")


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


def _flaws(metric: AnyMetric, inputs: Inputs, params: Params) -> list[Fault]:
    """Return what the metric itself finds wrong with its inputs."""
    found = metric.check(inputs, params) if metric.check else iter(())
    return [
        Fault(pointer("inputs", *flaw.path), "value", f"Expected {flaw.expected}; got {flaw.got}.")
        for flaw in islice(found, MOST_FAULTS)
    ]
