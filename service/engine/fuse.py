"""Evaluate like calls as one, so that a remote batch costs no more than a local loop.

Calls of one loss, params, options and shapes are stacked on a new first axis and evaluated under vmap; each gives the
result it gives alone. If torch has no batching rule, they are joined along an axis of samples instead.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.catalogue.dims import split
from service.catalogue.rounds import Abandoned, go_on
from service.engine.call import CPU, Call, Evaluation
from service.engine.cut import cut
from service.engine.evaluate import attempt, computed
from service.engine.fit import fit
from service.engine.memory import give_back_memory, is_exhausted
from service.engine.stack import Evaluations, Part, Stack, stacked
from service.engine.transfer import is_large, moved, working_on

logger = logging.getLogger("lossd")
Results = Sequence[Evaluation | Exception]


def likeness(call: Call) -> Hashable:
    """Return a key that is equal for calls that can be evaluated together."""
    if call.key is not None:
        return call.key
    shapes = tuple([(name, tensor.shape) for name, tensor in call.inputs.items()])
    weights = [t if t is None else t.shape for t in (call.sample_weight, call.grad_output)]
    tangents = tuple([(name, tensor.shape) for name, tensor in call.tangents.items()])
    params = tuple(call.params.items())
    options = (call.gradients_of, call.reduction, call.dtype, call.divide_by, call.hessian)
    return (call.loss.name, params, shapes, *weights, tangents, *options)


def evaluate_alike(parts: Sequence[Part], device: torch.device = CPU) -> Results:
    """Evaluate several like calls; failures stay separate. The caller bounds how many are evaluated at once."""
    try:
        return evaluate_together(_stacked(parts, device), device)
    except Abandoned:
        raise
    except Exception as error:
        # the fault may lie with one call, all of them together, or vmap: evaluate each alone
        logger.debug("evaluating calls of %s one by one: %s", parts[0].like.loss.name, error)
        exhausted = is_exhausted(error)
    if exhausted:
        give_back_memory()
    results: list[Evaluation | Exception] = []
    for part in parts:
        for call in part if isinstance(part, Stack) else (part,):
            go_on()
            results.append(attempt(call, device))
    return results


def _stacked(parts: Sequence[Part], device: torch.device) -> Stack:
    """Return like parts as one stack, which is made on the device for large inputs and on the host for small ones."""
    if device.type == "cpu" or not any(map(is_large, parts)):
        return stacked(parts)
    with working_on(device):
        return stacked([moved(part, device) for part in parts])


def evaluate_together(stack: Stack, device: torch.device = CPU) -> Sequence[Evaluation]:
    """Evaluate like calls as one call with a new first axis."""
    compute = partial(terms_together, stack.like)
    found = Evaluations(*computed(stack, compute, device))
    return found if not stack.like.loss.cuts else [*map(cut, stack, found)]


def terms_together(like: Call, stacks: Mapping[str, Tensor]) -> Terms:
    """Return the terms of like calls, whose inputs are stacked on a new first axis."""
    joins = like.loss.joins
    return _mapped(like, stacks) if joins is None else _joined(joins, like, stacks)


def _mapped(like: Call, stacks: Mapping[str, Tensor]) -> Terms:
    """Return the terms of calls under vmap."""

    def parts(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        # vmap returns tensors only, not None
        terms = like.loss.terms(inputs, like.params)
        return {name: part for name, part in terms._asdict().items() if part is not None}

    found = torch.func.vmap(parts)(stacks)
    return Terms(found["loss"], found.get("divisor"), found.get("mean_terms"), found["aux"])


def _joined(joins: str, like: Call, stacks: Mapping[str, Tensor]) -> Terms:
    """Return the terms of calls that are joined along the axis of their samples."""
    loss, count = like.loss, len(next(iter(stacks.values())))
    fitted = fit(
        loss, tuple([(name, tuple(tensor.shape)) for name, tensor in like.inputs.items()]), like.params
    )

    def join(name: str, stack: Tensor) -> Tensor:
        axis = split(fitted.form(name).dims).index(joins)
        return stack.movedim(0, axis).flatten(axis, axis + 1)

    def part(joined: Tensor) -> Tensor:
        return joined.reshape(count, len(joined) // count, *joined.shape[1:])

    terms = loss.terms({name: join(name, stack) for name, stack in stacks.items()}, like.params)
    divisor, mean_terms = (found if found is None else part(found) for found in terms[1:3])
    return Terms(
        part(terms.loss), divisor, mean_terms, {name: part(found) for name, found in terms.aux.items()}
    )
