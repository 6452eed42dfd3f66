"""The calls that the conformance tests make of each loss: its defaults, and every choice and form it has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs, draw_params
from service.catalogue.spec import Params
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.losses import CATALOGUE
from service.problems import Invalid

COMPANIONS: Mapping[tuple[str, Any], Params] = {
    ("loss_type", "robust"): {"label_smoothing": 0.2},
    ("loss_type", "exo_pair"): {"label_smoothing": 0.2},
}
"""Params without which a choice is invalid, or the same as the default."""

every_loss = pytest.mark.parametrize("loss", CATALOGUE.values(), ids=lambda loss: loss.name)


@dataclass(frozen=True)
class Variant:
    """Params and a row of forms; ``optional`` says whether optional inputs are sent."""

    loss: AnyLoss
    params: Params
    row: int
    optional: bool

    def request(self, seed: int = 0, **fields: Any) -> Request:
        """Draw a request; ``fields`` are its options, float64 by default."""
        inputs = draw_inputs(self.loss, self.params, row=self.row, optional=self.optional, seed=seed)
        fields = {"dtype": torch.float64, **fields}
        return Request(
            loss=self.loss, inputs={n: Sent(t) for n, t in inputs.items()}, params=self.params, **fields
        )

    def call(self, seed: int = 0, **fields: Any) -> Call:
        """Draw a valid call."""
        return bind(self.request(seed, **fields))


def variants(loss: AnyLoss) -> list[Variant]:
    """Return the default call, then one for each other choice of a param, row of forms and optional input."""
    default = draw_params(loss)
    has_optional = any(spec.optional for spec in loss.inputs.values())
    found = [
        Variant(loss, params, row, optional)
        for params in [default, *_other_choices(loss, default)]
        for row in loss.rows_for(params)
        for optional in {False, has_optional}
    ]
    # choices may exclude each other (no background to leave out of a binary mask); the default must be valid
    return [v for v in found if v == found[0] or _valid(v)]


def cross_entropy(rows: int, classes: int, seed: int = 0) -> Call:
    """Return a call of random logits."""
    rng = torch.Generator().manual_seed(seed)
    logits, targets = (
        torch.randn(rows, classes, generator=rng),
        torch.randint(classes, (rows,), generator=rng),
    )
    loss = CATALOGUE["cross_entropy"]
    inputs = {"logits": Sent(logits), "targets": Sent(targets)}
    return bind(Request(loss=loss, inputs=inputs, params=loss.defaults))


def leaves(call: Call) -> dict[str, Tensor]:
    """Return the inputs of a call with gradients on for the floating predictions."""
    return {n: t.detach().clone().requires_grad_(n in call.gradients_of) for n, t in call.inputs.items()}


def with_inputs(call: Call, **tensors: Tensor) -> Call:
    """Return a call with some of its inputs replaced."""
    return call._replace(inputs={**call.inputs, **tensors})


def _other_choices(loss: AnyLoss, default: Params) -> Iterator[Params]:
    """Change one param at a time to each other value that its type lists."""
    for name, param in loss.params.items():
        for choice in _choices(param.annotation):
            if choice != default[name] or type(choice) is not type(default[name]):
                yield {**default, name: choice, **COMPANIONS.get((name, choice), {})}


def _choices(annotation: Any) -> list[Any]:
    """Return the values that a type lists: literals, both booleans."""
    if annotation is bool:
        return [False, True]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for argument in get_args(annotation) for choice in _choices(argument)]


def _valid(variant: Variant) -> bool:
    """Return whether the declaration admits a variant."""
    try:
        variant.call()
    except Invalid:
        return False
    return True
