"""Shapes, reductions and weights of the value."""

from collections.abc import Iterator

import pytest
import torch

from service.catalogue.dims import expand, match
from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import Call, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Invalid
from tests.conformance.cases import every_loss, variants


@every_loss
def test_the_default_call_is_finite(loss: AnyLoss) -> None:
    evaluation = evaluate(variants(loss)[0].call())
    assert evaluation.value.isfinite()
    assert all(gradient.isfinite().all() for gradient in evaluation.gradients.values())


@every_loss
def test_outputs_have_the_declared_shapes(loss: AnyLoss) -> None:
    for variant in variants(loss):
        call = variant.call(reduction="none")
        sizes: dict[str, tuple[int, ...]] = {}
        for name, tensor in call.inputs.items():
            found = match(loss.inputs[name].form(variant.row).dims, tensor.shape, sizes)
            assert found is not None
            sizes = dict(found)
        terms = loss.terms(call.inputs, call.params)
        outputs = {"loss": terms.loss, "divisor": terms.divisor, "mean_terms": terms.mean_terms}
        for name, output in loss.outputs.items():
            tensor = terms.aux[name] if output.role == "aux" else outputs[output.role]
            if tensor is None:
                assert output.role == "divisor"
                continue
            assert tensor.shape == expand(output.dims(sizes, call.params), sizes), (name, variant.params)


@every_loss
def test_mean_is_the_weighted_sum_over_the_weighted_divisor(loss: AnyLoss) -> None:
    for variant in variants(loss):
        call = variant.call(reduction="none")
        terms = loss.terms(call.inputs, call.params)
        weight = torch.rand(terms.loss.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        weight = weight + 0.1
        divisor = torch.ones_like(terms.loss) if terms.divisor is None else terms.divisor
        averaged = terms.loss if terms.mean_terms is None else terms.mean_terms
        for sent, share in ((None, torch.ones_like(weight)), (Sent(weight), weight)):
            mean = evaluate(variant.call(reduction="mean", sample_weight=sent)).value
            expected = (share * averaged).sum() / (share * divisor).sum()
            torch.testing.assert_close(mean, expected, equal_nan=True)
            none = evaluate(variant.call(reduction="none", sample_weight=sent)).value
            torch.testing.assert_close(none, terms.loss * share, equal_nan=True)
            total = evaluate(variant.call(reduction="sum", sample_weight=sent)).value
            torch.testing.assert_close(total, none.sum(), equal_nan=True)


@pytest.mark.parametrize(
    "loss",
    [
        loss
        for loss in CATALOGUE.values()
        if any(output.role == "divisor" for output in loss.outputs.values())
    ],
    ids=lambda loss: loss.name,
)
def test_the_loss_is_zero_where_the_divisor_is(loss: AnyLoss) -> None:
    ignored = 0
    for call in _ignoring(loss):
        terms = loss.terms(call.inputs, call.params)
        if terms.divisor is None:
            continue
        assert (terms.loss[terms.divisor == 0] == 0).all()
        ignored += int((terms.divisor == 0).sum())
    assert ignored


def _ignoring(loss: AnyLoss) -> Iterator[Call]:
    """Yield calls whose targets are all equal, or all different: for some losses the divisor is then 0."""
    for variant in variants(loss):
        request = variant.request()
        for name in request.inputs.keys() - loss.predictions:
            tensor = request.inputs[name].tensor
            alike = [torch.full_like(tensor, fill) for fill in (0, 1, request.params.get("ignore_index", 0))]
            for filled in [*alike, torch.arange(tensor.numel()).reshape(tensor.shape).to(tensor.dtype)]:
                try:
                    yield bind(request._replace(inputs={**request.inputs, name: Sent(filled)}))
                except Invalid:
                    continue


@every_loss
def test_the_value_does_not_depend_on_whether_gradients_are_asked_for(loss: AnyLoss) -> None:
    for variant in variants(loss):
        for dtype in (torch.float64, torch.float32):
            with_gradients = evaluate(variant.call(dtype=dtype)).value
            without = evaluate(variant.call(dtype=dtype, gradients=False)).value
            assert torch.equal(with_gradients, without)
