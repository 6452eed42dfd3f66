"""Second derivatives of calls: how a value and gradients change along tangents of the inputs, and how with themselves.

Gradients are differentiated as they are, not the value twice: a loss may give another gradient than its derivative.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.catalogue.rounds import go_on
from service.catalogue.twice import Twice
from service.engine.reduce import reduce, reducible, spread
from service.engine.removed import harmless, without_losses
from service.engine.stack import Part, Stack, with_tensors

Tensors = Mapping[str, Tensor]
Compute = Callable[[Tensors], Terms]
_grad: Callable[..., Sequence[Tensor]] = torch.autograd.grad
NONE: Tensors = {}


class Second(NamedTuple):
    """The derivatives that a call asks for beyond its gradients; see `Evaluation`."""

    tangent: Tensor | None = None
    hessian_product: Tensors = NONE
    hessian: Tensors = NONE


def second(part: Part, compute: Compute, removing: bool) -> Second:
    """Return the second derivatives of a call, or of several that ``compute`` evaluates as one, where the inputs are.

    ``removing``: some weights are 0. Results are rounded to the requested dtype.

    Raises:
        Abandoned: nobody waits for them any longer.
    """
    found = _differentiated(part, compute, removing)
    if removing:
        found = _without_removed(part, compute, found)
    dtype = part.like.dtype
    return Second(
        None if found.tangent is None else found.tangent.to(dtype),
        {name: tensor.to(dtype) for name, tensor in found.hessian_product.items()},
        {name: tensor.to(dtype) for name, tensor in found.hessian.items()},
    )


def _differentiated(part: Part, compute: Compute, removing: bool) -> Second:
    """Differentiate twice, in the dtype of the arithmetic."""
    like, axes = (part.like, 1) if isinstance(part, Stack) else (part, 0)
    weight, tangents, names = part.sample_weight, part.tangents, like.gradients_of
    leaves = {**part.inputs}
    for name in {*names, *tangents}:
        leaves[name] = leaves[name].detach().requires_grad_()
    twice = Twice()
    with twice.entered():
        terms = compute(leaves)
        counted = without_losses(terms, weight) if removing else terms
        reduced = reduce(like, counted, weight, part.grad_output, axes)
    go_on()
    slopes = _gradients(reducible(like, terms), [leaves[name] for name in names], reduced.slope)
    twice.through = True
    found = Second()
    if tangents:
        along = [(leaves[name], tangent) for name, tangent in tangents.items()]
        tangent, *products = _changes((reduced.value, *slopes), along)
        found = Second(tangent, dict(zip(names, products, strict=True)))
    if like.hessian:
        found = found._replace(hessian=dict(_diagonals(names, slopes, leaves)))
    return found


def _without_removed(part: Part, compute: Compute, found: Second) -> Second:
    """Return derivatives without the infinities and NaNs that come from elements of weight 0 alone; see `without_removed`."""
    like, axes = (part.like, 1) if isinstance(part, Stack) else (part, 0)
    assert part.sample_weight is not None
    floating = {name: tensor for name, tensor in part.inputs.items() if tensor.is_floating_point()}
    for suspects in (floating, {**found.hessian_product, **found.hessian}):
        results = (*found.hessian_product.values(), *found.hessian.values(), found.tangent)
        if all(one is None or bool(one.isfinite().all()) for one in results):
            break
        places = {name: ~tensor.isfinite() for name, tensor in suspects.items()}
        inputs, free = harmless(like, part.inputs, places, part.sample_weight != 0, compute, axes)
        again = _differentiated(with_tensors(part, inputs), compute, removing=True)
        found = _mended(found, again, places, free)
    return found


def _mended(found: Second, again: Second, places: Tensors, free: Tensor) -> Second:
    """Return results with those of harmless inputs in the calls that are free of the others; 0 in the places of these."""
    tangent = found.tangent
    if tangent is not None and again.tangent is not None:
        tangent = torch.where(spread(free, tangent), again.tangent, tangent)

    def mended(old: Tensors, new: Tensors) -> Tensors:
        filled = {n: new[n].masked_fill(places[n], 0.0) if n in places else new[n] for n in old}
        return {name: torch.where(spread(free, one), filled[name], one) for name, one in old.items()}

    return Second(
        tangent,
        mended(found.hessian_product, again.hessian_product),
        mended(found.hessian, again.hessian),
    )


def _gradients(loss: Tensor, inputs: Sequence[Tensor], slope: Tensor) -> Sequence[Tensor]:
    """Return gradients that can be differentiated."""
    if not (loss.requires_grad and inputs):
        return [torch.zeros_like(one) for one in inputs]
    return _grad([loss], inputs, [slope], create_graph=True, materialize_grads=True)


def _diagonals(
    names: Sequence[str], slopes: Sequence[Tensor], leaves: Tensors
) -> Iterator[tuple[str, Tensor]]:
    """Yield the derivative of each element of a gradient by its own input, of losses that have no other."""
    for name, slope in zip(names, slopes, strict=True):
        go_on()
        yield name, _changes([slope], [(leaves[name], torch.ones_like(slope))])[0]


def _changes(outputs: Sequence[Tensor], along: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return the Jacobian-vector product of each output, for inputs and their tangents.

    The vector-Jacobian product is linear in its vector, and its derivative by that vector is what is wanted.
    """
    moving = [output for output in outputs if output.requires_grad]
    vectors = [torch.zeros_like(output).requires_grad_() for output in moving]
    options: Any = {"materialize_grads": True, "retain_graph": True}
    pulled: Sequence[Tensor] = []
    if moving:
        pulled = _grad(moving, [one for one, _ in along], vectors, create_graph=True, **options)
    products = [
        (one * tangent).sum() for one, (_, tangent) in zip(pulled, along, strict=False) if one.requires_grad
    ]
    changes = iter(_grad([torch.stack(products).sum()], vectors, **options) if products else vectors)
    return [
        (next(changes) if output.requires_grad else torch.zeros_like(output)).detach() for output in outputs
    ]
