"""Second derivatives of calls: how a value and gradients change along tangents of the inputs, and how with themselves.

Gradients are differentiated as they are, not the value twice: a loss may give another gradient than its derivative.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.catalogue.twice import Twice
from service.engine.reduce import reduce, reducible
from service.engine.stack import Part, Stack

Tensors = Mapping[str, Tensor]
_grad: Callable[..., Sequence[Tensor]] = torch.autograd.grad
NOTHING: Tensors = {}


class Second(NamedTuple):
    """The derivatives that a call asks for beyond its gradients; see `Evaluation`."""

    tangent: Tensor | None = None
    hessian_product: Tensors = NOTHING
    hessian: Tensors = NOTHING


def second(part: Part, compute: Callable[[Tensors], Terms]) -> Second:
    """Return the second derivatives of a call, or of several that ``compute`` evaluates as one, where the inputs are."""
    like, axes = (part.like, 1) if isinstance(part, Stack) else (part, 0)
    tangents, names = part.tangents, like.gradients_of
    if not tangents and not like.hessian:
        return Second()
    leaves = {**part.inputs}
    for name in {*names, *tangents}:
        leaves[name] = leaves[name].detach().requires_grad_()
    twice = Twice()
    with twice.entered():
        terms = compute(leaves)
        value, slope = reduce(like, terms, part.sample_weight, part.grad_output, axes)
    slopes = _gradients(reducible(like, terms), [leaves[name] for name in names], slope)
    twice.through = True
    tangent, products, diagonals = None, NOTHING, NOTHING
    if tangents:
        along = [(leaves[name], tangents[name]) for name in tangents]
        tangent, *found = _changes((value, *slopes), along)
        products = dict(zip(names, found, strict=True))
    if like.hessian:
        pairs = zip(names, slopes, strict=True)
        diagonals = {n: _changes([s], [(leaves[n], torch.ones_like(s))])[0] for n, s in pairs}
    return Second(tangent, products, diagonals)


def _gradients(loss: Tensor, inputs: Sequence[Tensor], slope: Tensor) -> Sequence[Tensor]:
    """Return gradients that can be differentiated."""
    if not (loss.requires_grad and inputs):
        return [torch.zeros_like(one) for one in inputs]
    return _grad([loss], inputs, [slope], create_graph=True, materialize_grads=True)


def _changes(outputs: Sequence[Tensor], along: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return the Jacobian-vector product of each output, for inputs and their tangents.

    The vector-Jacobian product is linear in its vector, and its derivative by that vector is what is wanted.
    """
    inputs, tangents = zip(*along, strict=True)
    moving = [output for output in outputs if output.requires_grad]
    vectors = [torch.zeros_like(output).requires_grad_() for output in moving]
    options: Any = {"materialize_grads": True, "retain_graph": True}
    pulled = _grad(moving, inputs, vectors, create_graph=True, **options) if moving else []
    products = [(one * tangent).sum() for one, tangent in zip(pulled, tangents, strict=bool(moving))]
    total = torch.stack(products).sum() if products else torch.zeros(())
    found = iter(_grad([total], vectors, **options) if total.requires_grad else vectors)
    return [(next(found) if output.requires_grad else torch.zeros_like(output)).detach() for output in outputs]
