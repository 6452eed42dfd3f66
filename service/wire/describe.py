"""Catalogue entries of losses for clients and learners, with an example that runs."""

from functools import cache
from typing import Any, cast

from torch import Tensor

from service.catalogue.declaration import REQUIRED, AnyDeclaration
from service.catalogue.dims import names, split
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs, draw_params
from service.catalogue.spec import Form, Input, Scales
from service.wire.json import show
from service.wire.params import schema

DIGITS = 4
"""Decimals in examples: short, yet sums of probabilities stay within the tolerance."""


def brief(loss: AnyLoss) -> dict[str, Any]:
    """Return a loss's entry in the list."""
    return {
        "name": loss.name,
        "title": loss.title,
        "tasks": list(loss.tasks),
        "summary": loss.prose.summary,
        "differentiable": loss.differentiable,
    }


@cache
def entry(loss: AnyLoss) -> dict[str, Any]:
    """Return the full entry of a loss."""
    return {
        **brief(loss),
        "aliases": list(loss.aliases),
        "keywords": list(loss.keywords),
        "formula": loss.prose.formula,
        "inputs": [input_entry(name, spec, loss.prose.arguments[name]) for name, spec in loss.inputs.items()],
        "params": params_schema(loss),
        "unreduced": list(split(_unreduced(loss))),
        "unreduced_forms": [_form(form) for form in loss.unreduced.forms],
        "range": _range(loss),
        "shards": _shards(loss),
        **({"scales": _scales(loss.scales)} if loss.scales else {}),
        "aux": [name for name, output in loss.outputs.items() if output.role == "aux"],
        "elementwise": elementwise(loss),
        "exact_gradient": loss.exact_gradient,
        "use_when": loss.prose.use_when,
        "pitfalls": loss.prose.pitfalls,
        "sources": list(loss.prose.sources),
        "example": example(loss),
    }


def _unreduced(loss: AnyLoss) -> str:
    """Return the dims of the unreduced loss of the example."""
    params = draw_params(loss)
    row = loss.rows_for(params)[0]
    used = frozenset[str]().union(*(names(spec.form(row).dims) for spec in loss.inputs.values()))
    return loss.unreduced.dims(dict.fromkeys(used, ()), params)


def elementwise(loss: AnyLoss) -> list[str]:
    """Return the floating inputs each of whose elements moves one element of the loss, with the params of the example."""
    params = draw_params(loss)
    row = loss.rows_for(params)[0]
    forms = {name: spec.form(row) for name, spec in loss.inputs.items() if not spec.optional}
    sizes = {dim: () for form in forms.values() for dim in names(form.dims)}
    floating = [name for name, form in forms.items() if form.domain.kind == "float"]
    return [name for name in floating if loss.elementwise(name, row, sizes, params)]


def params_schema(declared: AnyDeclaration) -> dict[str, Any]:
    """Return the JSON Schema of the params of a loss or metric."""
    descriptions = declared.prose.arguments
    required = [name for name, param in declared.params.items() if param.default is REQUIRED]
    return {
        "type": "object",
        "properties": {name: schema(param, descriptions[name]) for name, param in declared.params.items()},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Move the defaults of a schema of params into the descriptions: generated clients would send them."""
    for param in schema["properties"].values():
        if "default" in param:
            param["description"] += f" The default is {show(param.pop('default'))}."
    return schema


@cache
def example(loss: AnyLoss) -> dict[str, Any]:
    """Return a request body that runs as it is, always the same."""
    changed = {n: short(v) for n, v in draw_params(loss).items() if v != loss.params[n].default}
    required = {n: tensor for n, tensor in example_inputs(loss).items() if not loss.inputs[n].optional}
    return {"inputs": required, **({"params": changed} if changed else {})}


@cache
def example_inputs(loss: AnyLoss) -> dict[str, Any]:
    """Return a value for each input of the example, and for each optional input."""
    drawn = draw_inputs(loss, draw_params(loss), optional=True)
    return {name: rounded(tensor) for name, tensor in drawn.items()}


def input_entry(name: str, spec: Input, description: str) -> dict[str, Any]:
    """Describe an input: its first form, and all forms if there are several."""
    first, *others = dict.fromkeys(spec.forms)
    return {
        "name": name,
        "role": spec.role,
        "kind": spec.kind,
        "dims": list(split(first.dims)),
        "domain": first.describe(),
        "optional": spec.optional,
        **({"texts": True} if spec.texts else {}),
        "description": description,
        **({"forms": [_form(form, domain=True) for form in (first, *others)]} if others else {}),
    }


def _form(form: Form, *, domain: bool = False) -> dict[str, Any]:
    """Describe one form of a tensor."""
    return {
        "dims": list(split(form.dims)),
        **({"kind": form.domain.kind, "domain": form.describe()} if domain else {}),
        **({"when": form.when.text} if form.when.text else {}),
    }


def _range(loss: AnyLoss) -> dict[str, Any]:
    """Describe the bounds of the unreduced loss; if they depend on params, for those of the example."""
    bounds = zip(("least", "most"), loss.bounds(draw_params(loss)), strict=True)
    return {
        **{name: bound for name, bound in bounds if bound is not None},
        "depends_on_params": callable(loss.range),
    }


def _shards(loss: AnyLoss) -> dict[str, Any]:
    """Describe whether shards of a batch add up to it."""
    return {
        "add_up": loss.batch_dim is not None,
        **({"along": loss.batch_dim} if loss.batch_dim else {}),
        **({"unless": unless} if (unless := list(loss.not_adding_up)) else {}),
        **({} if loss.averages_itself or not loss.batch_dim else {"only_with_divide_by": True}),
    }


def shards_in_words(loss: AnyLoss) -> str:
    """Describe whether shards of a batch add up to it."""
    dim = loss.batch_dim
    if dim is None:
        why = (
            "its elements depend on other samples"
            if loss.compares_samples
            else "its mean is of all samples at once"
        )
        return f"Shards of a batch do not add up: {why}."
    unless = f", unless {' or '.join(loss.not_adding_up)}" if loss.not_adding_up else ""
    if loss.averages_itself:
        return f"Shards of a batch add up along `{dim}`{unless}."
    return f"Shards of a batch add up along `{dim}`{unless}, but with `divide_by` only: the mean is not of the elements summed."


def _scales(law: Scales) -> dict[str, Any]:
    """Describe how a loss scales with its inputs."""
    return {
        "degree": law.degree,
        "inputs": list(law.inputs),
        **({"entries": law.entries} if law.entries is not None else {}),
        **({"along": list(law.along)} if law.along else {}),
        **({"params": {name: short(value) for name, value in law.params.items()}} if law.params else {}),
    }


def range_in_words(loss: AnyLoss) -> str:
    """Describe the bounds of the unreduced loss in words, or return an empty text."""
    bounds = _range(loss)
    least, most = (f"{bounds[end]:.5g}" if end in bounds else "" for end in ("least", "most"))
    words = (
        f"from {least} to {most}" if least and most else f"at {'least' if least else 'most'} {least or most}"
    )
    params = " with the params of the example" if bounds["depends_on_params"] else ""
    return words + params if least or most else ""


def rounded(tensor: Tensor) -> Any:
    """Return a tensor as nested lists of short numbers."""
    rounded = tensor.round(decimals=DIGITS) if tensor.is_floating_point() else tensor
    return cast(Any, rounded).tolist()


def short(value: Any) -> Any:
    """Return a param with tuples as lists, and numbers of few digits."""
    if isinstance(value, tuple):
        return [short(item) for item in cast(tuple[Any, ...], value)]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
