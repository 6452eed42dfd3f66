"""A sample weight of 0 removes an element altogether: whatever its loss is, its value and gradients are as if it were not."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Call, Evaluation, Reduction, Request, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from service.losses import CATALOGUE
from service.problems import Invalid
from tests.conformance.cases import MATCHED, variants


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "loss", [loss for loss in CATALOGUE.values() if loss.name not in MATCHED], ids=lambda loss: loss.name
)
def test_a_weight_of_zero_removes_what_is_not_finite(loss: AnyLoss, reduction: Reduction) -> None:
    tried = 0
    for variant in variants(loss)[:4]:
        request = variant.request()._replace(reduction=reduction)
        for spoiled, probe in _spoiled(request):
            pair = _weighted(request, spoiled, probe)
            if pair is None:
                continue
            tried += 1
            expected = evaluate(pair[0])
            for evaluation in (
                evaluate(pair[1]),
                *evaluate_together(stacked([pair[1], pair[0], pair[1]])),
            ):
                _assert_equal(evaluation, expected)
    assert tried


def _spoiled(request: Request) -> Iterator[tuple[Request, Request]]:
    """Yield the request with the first prediction, or all, no finite number: as it is, and with NaN there."""
    for number in (math.nan, math.inf, -math.inf):
        for first in (True, False):
            yield _with_predictions(request, number, first), _with_predictions(request, math.nan, first)


def _with_predictions(request: Request, number: float, first: bool) -> Request:
    """Put a number at the first place of each prediction, or everywhere."""
    inputs = dict(request.inputs)
    for name in request.loss.predictions:
        if name in inputs:
            inputs[name] = Sent(_with(inputs[name].tensor, number, first))
    return request._replace(inputs=inputs)


def _with(tensor: Tensor, number: float, first: bool) -> Tensor:
    """Return a tensor that holds a number at its first place, or everywhere."""
    spoiled = tensor.clone()
    spoiled.view(-1)[: 1 if first else None] = number
    return spoiled


def _weighted(request: Request, spoiled: Request, probe: Request) -> tuple[Call, Call] | None:
    """Return both with weights of 0 where NaN reaches; None where the second is refused."""
    alone = [each._replace(reduction="none", gradients=False) for each in (request, probe)]
    whole, broken = (evaluate(bind(each)).value for each in alone)
    weight = Sent(((whole == broken) & whole.isfinite()).double())
    try:
        return bind(request._replace(sample_weight=weight)), bind(spoiled._replace(sample_weight=weight))
    except Invalid:
        return None


def _assert_equal(found: Evaluation, expected: Evaluation) -> None:
    torch.testing.assert_close(found.value, expected.value, equal_nan=True)
    torch.testing.assert_close(dict(found.gradients), dict(expected.gradients))
