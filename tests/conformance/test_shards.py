"""Shards of a batch add up to it: their sums divided once by their divisors, or means divided by a number known before."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.dims import split
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Invalid
from tests.conformance.cases import Variant, every_loss, variants

SIZES = {"N": 5, "...": (5, 3)}
SHARDS = (2, 3)
CLOSE = 1e-12


class Batch:
    """The inputs of a variant, and the axis along which each is split: None if all shards share it."""

    def __init__(self, variant: Variant) -> None:
        loss = self.loss = variant.loss
        self.params = variant.params
        self.inputs = draw_inputs(
            loss, variant.params, row=variant.row, optional=variant.optional, sizes=SIZES
        )
        dims = {name: split(loss.inputs[name].form(variant.row).dims) for name in self.inputs}
        # where the catalogue has no dim to split along, the first one is tried
        dim = loss.batch_dim or next(iter(dims.values()))[0]
        self.axes = {name: parts.index(dim) if dim in parts else None for name, parts in dims.items()}
        self.size = max(
            [self.inputs[name].shape[axis] for name, axis in self.axes.items() if axis is not None], default=0
        )

    def whole(self, **fields: Any) -> Evaluation:
        """Evaluate the batch."""
        return self._evaluate(self.inputs, **fields)

    def shards(self, weight: Tensor | None = None, **fields: Any) -> list[Evaluation]:
        """Evaluate each shard."""
        found: list[Evaluation] = []
        start = 0
        for size in (SHARDS[0], self.size - SHARDS[0]):
            part = {
                name: tensor if axis is None else tensor.narrow(axis, start, size).contiguous()
                for name, tensor in self.inputs.items()
                for axis in [self.axes[name]]
            }
            weighted = None if weight is None else weight[start : start + size]
            found.append(self._evaluate(part, weight=weighted, **fields))
            start += size
        return found

    def joined(self, shards: Sequence[Evaluation]) -> dict[str, Tensor]:
        """Return the sum of the shards' values, and their gradients: shared inputs have the sum, others their parts."""
        found = {"value": _sum([shard.value for shard in shards])}
        for name in shards[0].gradients:
            parts, axis = [shard.gradients[name] for shard in shards], self.axes[name]
            found[name] = _sum(parts) if axis is None else torch.cat(parts, axis)
        return found

    def _evaluate(
        self, inputs: Mapping[str, Tensor], weight: Tensor | None = None, **fields: Any
    ) -> Evaluation:
        sent = {name: Sent(tensor) for name, tensor in inputs.items()}
        weighted = None if weight is None else Sent(weight)
        return evaluate(
            bind(Request(self.loss, sent, self.params, sample_weight=weighted, dtype=torch.float64, **fields))
        )


@every_loss
def test_the_catalogue_knows_whether_shards_add_up(loss: AnyLoss) -> None:
    for variant in variants(loss):
        batch = Batch(variant)
        if batch.size:
            assert _add_up(batch) == loss.adds_up(variant.params), variant


@pytest.mark.parametrize(
    "loss", [one for one in CATALOGUE.values() if one.batch_dim], ids=lambda loss: loss.name
)
def test_weighted_shards_add_up(loss: AnyLoss) -> None:
    variant = variants(loss)[0]
    if loss.adds_up(variant.params):
        batch = Batch(variant)
        assert _add_up(batch, torch.linspace(0.25, 2, batch.size, dtype=torch.float64))


def _add_up(batch: Batch, weight: Tensor | None = None) -> bool:
    """Return whether value, gradients and divisor of a batch follow from those of its shards."""
    try:
        whole = batch.whole(weight=weight)
        summed = batch.shards(weight, reduction="sum")
        assert whole.divisor is not None
        known = batch.joined(batch.shards(weight, divide_by=whole.divisor.item()))
    except Invalid:
        return False
    divisor = _sum([shard.divisor for shard in summed if shard.divisor is not None])
    expected = {"value": whole.value, **whole.gradients}
    ways = [known]
    if batch.loss.averages_itself:
        ways.append({name: tensor / divisor for name, tensor in batch.joined(summed).items()})
    return _same({"divisor": divisor}, {"divisor": whole.divisor}) and all(
        _same(found, expected) for found in ways
    )


def _same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are equal, relative to the largest element of each."""
    return all(
        tensor.shape == found[name].shape
        and torch.allclose(
            found[name], tensor, rtol=CLOSE, atol=CLOSE * max(1.0, tensor.abs().max().item()), equal_nan=True
        )
        for name, tensor in expected.items()
    )


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    """Add tensors of the same shape."""
    return torch.stack([*tensors]).sum(0)
