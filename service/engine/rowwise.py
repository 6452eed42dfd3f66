"""Losses as metrics: each sample is a call alone, whose sum and divisor are its row."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.catalogue.dims import split
from service.catalogue.metric import AnyMetric, Metric, Undefined, Value, Weights
from service.catalogue.registry import AnyLoss
from service.catalogue.rounds import go_on
from service.catalogue.sample import draw_inputs
from service.catalogue.spec import Params
from service.catalogue.table import Array, Columns, Table
from service.engine.bind import bind, bind_alike
from service.engine.call import Request, Sent
from service.engine.cost import BUDGET
from service.engine.fuse import terms_together
from service.engine.stack import Stack, stacked
from service.problems import Invalid

SUM, DIVISOR = "sum", "divisor"
SAMPLES = (("N",), ("...",))
"""First dims of what has samples."""


@cache
def as_metric(loss: AnyLoss) -> AnyMetric:
    """Return a loss as a metric: the mean over all samples, each of which is computed as a call alone, in float64."""

    def rows(**arguments: Any) -> Columns:
        params = {name: arguments[name] for name in loss.params}
        inputs = {name: arguments[name] for name in loss.inputs if arguments[name] is not None}
        return sums_of_samples(loss, inputs, params)

    return Metric(
        name=loss.name,
        title=loss.title,
        tasks=loss.tasks,
        aliases=loss.aliases,
        keywords=loss.keywords,
        requires=loss.requires,
        work=loss.work,
        overhead=(),
        example=loss.example,
        function=rows,
        inputs=loss.inputs,
        params=loss.params,
        outputs=loss.outputs,
        prose=loss.prose,
        finish=_mean,
        each=_each,
        higher_is_better=False,
    )


def takes_samples_alone(loss: AnyLoss, params: Params) -> bool:
    """Return whether a loss has a value for a single sample; samples are the first axis of all its inputs."""
    return any(_takes_one(loss, params, row) for row in loss.rows_for(params))


def _takes_one(loss: AnyLoss, params: Params, row: int) -> bool:
    """Return whether a loss has a value for a single sample in one row of forms."""
    inputs = [split(spec.form(row).dims)[:1] for spec in loss.inputs.values() if not spec.optional]
    losses = [split(form.dims)[:1] for form in loss.unreduced.forms if form.when.holds(params)]
    if any(first not in SAMPLES for first in inputs) or inputs[0] not in losses or len({*inputs}) > 1:
        return False
    drawn = draw_inputs(
        loss, params, sizes={"N": 1, "...": (1, 2) if inputs[0] == ("...",) else (2,)}, row=row
    )
    try:
        bind(_request(loss, drawn, params))
    except Invalid:
        return False
    return True


def sums_of_samples(loss: AnyLoss, inputs: Mapping[str, Tensor], params: Params) -> Columns:
    """Return the sum of each sample's loss, and what its mean divides it by.

    Raises:
        Invalid: a sample is no valid call; pointers lead into the inputs.
    """
    found = [_sums(terms) for terms in _terms(_bound(loss, inputs, params))]
    sums, divisors = zip(*found, strict=True)
    return {SUM: np.concatenate(sums), DIVISOR: np.concatenate(divisors)}


def _bound(loss: AnyLoss, inputs: Mapping[str, Tensor], params: Params) -> Stack:
    """Return the calls of all samples."""
    stacks = {name: tensor.cpu().unsqueeze(1) for name, tensor in inputs.items()}
    first = _request(loss, {name: stack[0] for name, stack in stacks.items()}, params)
    if (stack := bind_alike(first, stacks)) is not None:
        return stack
    calls = [
        bind(_request(loss, {name: stack[place] for name, stack in stacks.items()}, params))
        for place in range(len(next(iter(stacks.values()))))
    ]
    return stacked(calls)


def _request(loss: AnyLoss, inputs: Mapping[str, Tensor], params: Params) -> Request:
    """Return the request for one sample."""
    sent = {name: Sent(tensor) for name, tensor in inputs.items()}
    return Request(
        loss=loss, inputs=sent, params=params, gradients=False, reduction="sum", dtype=torch.float64
    )


def _terms(stack: Stack) -> Iterator[Terms]:
    """Yield the terms of calls, some at a time."""
    for piece in stack.pieces(max(1, BUDGET // max(1, stack.like.work))):
        go_on()
        with torch.no_grad():
            try:
                yield terms_together(stack.like, piece.inputs)
            except RuntimeError:
                # torch has no rule for a batch of them
                for call in piece:
                    loss, divisor, mean_terms, _ = call.loss.terms(call.inputs, call.params)
                    yield Terms(loss[None], _first(divisor), _first(mean_terms), {})


def _first(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor with a new first axis, if it is there."""
    return None if tensor is None else tensor[None]


def _sums(terms: Terms) -> tuple[Array, Array]:
    """Return the sum of each call, and its divisor."""
    loss = terms.loss if terms.mean_terms is None else terms.mean_terms
    count = len(loss)
    sums = loss.double().reshape(count, -1).sum(1)
    if terms.divisor is None or terms.mean_terms is not None:
        divisors = torch.full_like(sums, loss.numel() / max(1, count))
    else:
        divisors = terms.divisor.expand_as(loss).double().reshape(count, -1).sum(1)
    return sums.numpy(), divisors.numpy()


def _mean(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Return the mean of all samples for any weights."""
    sums, divisors = rows[SUM], rows[DIVISOR]

    def run(weights: Weights) -> Value:
        with np.errstate(all="ignore"):
            total, divisor = float((weights * sums).sum()), float((weights * divisors).sum())
        if not divisor:
            return Undefined("no element counts")
        value = total / divisor
        return value if np.isfinite(value) else Undefined(f"the mean is {value}")

    return run


def _each(rows: Table, params: Params) -> Array:
    """Return the mean of each sample alone."""
    with np.errstate(all="ignore"):
        return rows[SUM] / rows[DIVISOR]
