"""Nothing in it: whichever sizes of a call are zero, it is answered or refused, under every reduction."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, get_args

import pytest
import torch

from service.catalogue.dims import Sizes, expand, match, names
from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Call, Reduction, Request, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_together
from service.engine.stack import stacked
from service.problems import Invalid
from tests.conformance.cases import Variant, every_loss, variants


@every_loss
@pytest.mark.parametrize("reduction", get_args(Reduction))
def test_a_size_of_zero_is_answered_or_refused(loss: AnyLoss, reduction: Reduction) -> None:
    requests = [request for variant in variants(loss) for request in _emptied(variant)]
    assert requests
    for request in requests:
        try:
            call = bind(request._replace(reduction=reduction))
        except Invalid:
            continue
        _assert_answered(call)


def _assert_answered(call: Call) -> None:
    """Check that there is a number where one is due, alone and together, and gradients that are as empty."""
    evaluation = evaluate(call)
    assert not evaluation.value.isnan().any()
    if call.reduction != "none":
        elements = evaluate(call._replace(reduction="none")).value.numel()
        # a mean of nothing is refused
        assert elements if call.reduction == "mean" else elements or evaluation.value == 0
    for name, gradient in evaluation.gradients.items():
        assert gradient.shape == call.inputs[name].shape
    for each in evaluate_together(stacked([call, call])):
        torch.testing.assert_close(each.value, evaluation.value)


def _emptied(variant: Variant) -> Iterator[Request]:
    """Yield the request with one size, or two, made zero: as tensors with a shape, and as empty lists."""
    request = variant.request()
    sizes: Sizes = {}
    for name, sent in request.inputs.items():
        found = match(variant.loss.inputs[name].form(variant.row).dims, sent.tensor.shape, sizes)
        assert found is not None
        sizes = found
    zeros = {dim: (0,) * len(size) for dim, size in sizes.items() if size}
    for count in (1, 2):
        for dims in combinations(zeros, count):
            emptied = {**sizes, **{dim: zeros[dim] for dim in dims}}
            params = _params(variant, emptied)
            inputs = {n: _cut(variant, n, sent, emptied) for n, sent in request.inputs.items()}
            yield request._replace(inputs=inputs, params=params)
            yield request._replace(inputs={n: _unranked(sent) for n, sent in inputs.items()}, params=params)


def _cut(variant: Variant, name: str, sent: Sent, sizes: Sizes) -> Sent:
    """Return the leading part of an input that has the given sizes."""
    shape = expand(variant.loss.inputs[name].form(variant.row).dims, sizes)
    return Sent(sent.tensor[tuple([slice(0, max(0, size)) for size in shape])])


def _unranked(sent: Sent) -> Sent:
    """Return an empty input as a JSON ``[]``, which has whatever rank is wanted."""
    return sent if sent.tensor.numel() else Sent(sent.tensor.reshape(-1), any_rank=True)


def _params(variant: Variant, sizes: Sizes) -> Mapping[str, Any]:
    """Return the params with lists as short as the sizes are."""
    found = dict(variant.params)
    for name, param in variant.loss.params.items():
        if param.values and isinstance(found[name], tuple) and names(param.values.dims) <= sizes.keys():
            found[name] = found[name][: expand(param.values.dims, sizes)[0]]
    return found
