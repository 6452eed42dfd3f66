"""Draw valid inputs for a loss or metric from its declaration, for examples, warm-up and property tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from service.catalogue.declaration import REQUIRED, AnyDeclaration
from service.catalogue.dims import Shape, Sizes, expand, names
from service.catalogue.domains import Facts
from service.catalogue.spec import Params

SMALL: Mapping[str, int | Sequence[int]] = {
    "N": 2,
    "M": 3,
    "C": 3,
    "D": 4,
    "K": 3,
    "L": 4,
    "T": 5,
    "...": (2,),
}
OTHER = 4
"""Size of dimensions that `SMALL` does not name."""


def draw_params(loss: AnyDeclaration, seed: int = 0) -> Params:
    """Return params for a random call: the defaults, those of the declared example, and random required lists."""
    rng = torch.Generator().manual_seed(seed)
    facts = Facts(_sizes(loss, {**loss.defaults, **loss.example.params}), loss.defaults, {})
    required = {
        name: _tuples(param.values.domain.draw(expand(param.values.dims, facts.sizes), facts, rng))
        for name, param in loss.params.items()
        if param.default is REQUIRED and param.values and name not in loss.example.params
    }
    return {**loss.defaults, **required, **loss.example.params}


def draw_inputs(
    loss: AnyDeclaration,
    params: Params,
    *,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    row: int | None = None,
    optional: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return one valid tensor for each input; the same seed gives the same tensors.

    ``row`` selects the forms (by default the first that suits the params), ``optional`` includes optional inputs.
    """
    rng = torch.Generator().manual_seed(seed)
    row = loss.rows_for(params)[0] if row is None else row
    bound = {**_sizes(loss, params), **{n: _shape(s) for n, s in (sizes or {}).items()}}
    drawn: dict[str, Tensor] = {}
    for name, spec in loss.inputs.items():
        if (optional or not spec.optional) and name not in loss.example.inputs:
            form = spec.form(row)
            drawn[name] = form.domain.draw(expand(form.dims, bound), Facts(bound, params, drawn), rng)
    return drawn


def _tuples(values: Tensor) -> Any:
    """Return a tensor as the nested tuples that params use."""
    return tuple(map(_tuples, values)) if values.dim() else values.item()


def _sizes(loss: AnyDeclaration, params: Params) -> Sizes:
    """Return a size for every name in the loss's dims."""
    used = set[str]().union(*(names(form.dims) for spec in loss.inputs.values() for form in spec.forms))
    sizes = {name: _shape(SMALL.get(name, OTHER)) for name in used}
    for name, param in loss.params.items():
        if param.values and param.values.dims in used and isinstance(params.get(name), tuple):
            sizes[param.values.dims] = (len(params[name]),)
    return sizes | {name: _shape(size) for name, size in loss.example.sizes.items()}


def _shape(size: int | Sequence[int]) -> Shape:
    """Return a size as a tuple, as patterns store it."""
    return (size,) if isinstance(size, int) else tuple(size)
