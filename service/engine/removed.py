"""Elements with a sample weight of 0 have zero gradients, even where the loss is not differentiable.

Autograd would multiply the slope 0 by an infinite derivative, which is NaN. So non-finite inputs, and then those without
a finite gradient, are replaced, unless an element with a weight depends on them.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from service.catalogue.declare import Terms
from service.engine.backward import gradients
from service.engine.call import Call
from service.engine.reduce import reducible, spread

Tensors = Mapping[str, Tensor]
HARMLESS = 0.5
"""A value inside most domains, and not at the edge of one."""


def removes(weight: Tensor) -> bool:
    """Return whether any sample weight is 0."""
    return not bool(weight.all())


def without_losses(terms: Terms, weight: Tensor | None) -> Terms:
    """Return terms that are 0 where the weight is: 0 times infinity would be NaN."""
    if weight is None:
        return terms
    kept = terms.mean_terms
    return terms._replace(
        loss=terms.loss.detach().masked_fill(weight == 0, 0.0),
        mean_terms=None if kept is None else kept.detach().masked_fill(weight == 0, 0.0),
    )


def without_removed(
    call: Call, found: Tensors, inputs: Tensors, slope: Tensor, compute: Callable[[Tensors], Terms], axes: int
) -> Tensors:
    """Return gradients without the infinities and NaNs that come from removed elements alone.

    ``compute`` evaluates the terms that ``slope`` belongs to. Calls stacked along the first of the ``axes`` are
    treated separately; ``call`` is one of them.
    """
    for suspects in ({n: t for n, t in inputs.items() if t.is_floating_point()}, found):
        if all(bool(gradient.isfinite().all()) for gradient in found.values()):
            break
        places = {name: ~suspects[name].isfinite() for name in suspects}
        leaves, free = harmless(call, inputs, places, slope != 0, compute, axes)
        for name in call.gradients_of:
            leaves[name] = leaves[name].detach().requires_grad_()
        mended = gradients(call, reducible(call, compute(leaves)), slope, leaves)
        found = {
            name: torch.where(spread(free, old), mended[name].masked_fill(places[name], 0.0), old)
            for name, old in found.items()
        }
    return found


def harmless(
    call: Call,
    inputs: Tensors,
    places: Tensors,
    counting: Tensor,
    compute: Callable[[Tensors], Terms],
    axes: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return inputs with harmless numbers in some places, and whether no ``counting`` element depends on these: for each call."""
    counted = counting
    # where nothing has a weight, nothing counts
    if bool(counting.any()):
        counted = reducible(call, compute(_filled(inputs, places, torch.nan))).isnan() & counting
    return _filled(inputs, places, HARMLESS), ~counted.reshape(*counted.shape[:axes], -1).any(-1)


def _filled(inputs: Tensors, places: Tensors, number: float) -> dict[str, Tensor]:
    """Return inputs with some elements replaced by a number."""
    return {n: t.detach().masked_fill(places[n], number) if n in places else t for n, t in inputs.items()}
