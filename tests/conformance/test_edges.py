"""Edges that every loss has: NaN among the predictions, no rows, all weights zero, huge numbers."""

from dataclasses import replace

import pytest
import torch

from service.catalogue.domains import Real
from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.problems import Invalid
from tests.conformance.cases import every_loss, variants, with_inputs


@every_loss
def test_nan_predictions_are_answered_not_refused(loss: AnyLoss) -> None:
    for variant in variants(loss)[:4]:
        call = variant.call()
        nan = {n: torch.full_like(call.inputs[n], torch.nan) for n in loss.predictions if n in call.inputs}
        evaluate(with_inputs(call, **nan))
        request = variant.request()
        bind(replace(request, inputs={**request.inputs, **{n: Sent(t) for n, t in nan.items()}}))


@every_loss
def test_weights_of_zero_give_a_mean_of_zero_or_nan_and_zero_gradients(loss: AnyLoss) -> None:
    variant = variants(loss)[0]
    zero = evaluate(variant.call(sample_weight=Sent(torch.tensor(0.0))))
    assert zero.value == 0 or zero.value.isnan()
    assert all((gradient == 0).all() for gradient in zero.gradients.values())


@every_loss
def test_no_rows_are_an_empty_list_or_a_fault(loss: AnyLoss) -> None:
    params = variants(loss)[0].params
    for dim in ("N", "..."):
        sizes = {dim: (0,) if dim == "..." else 0}
        try:
            inputs = draw_inputs(loss, params, sizes=sizes)
        except (RuntimeError, IndexError, ValueError, KeyError):
            continue
        if not all(tensor.numel() == 0 for tensor in inputs.values()):
            continue
        request = Request(loss=loss, inputs={n: Sent(t) for n, t in inputs.items()}, params=params)
        with pytest.raises(Invalid):
            bind(request)
        try:
            call = bind(replace(request, reduction="sum"))
        except Invalid:
            continue
        assert evaluate(call).value == 0


@every_loss
def test_large_real_predictions_stay_finite(loss: AnyLoss) -> None:
    """Scores of ±1e4 must not overflow: only what the mathematics itself sends to infinity may."""
    if loss.name in GROWS:
        pytest.skip("an exponential or a square of its own: the value itself is that large")
    for variant in variants(loss)[:2]:
        call = variant.call(dtype=torch.float32)
        large = {
            name: 1e4 * call.inputs[name].sign()
            for name in loss.predictions
            if name in call.inputs and isinstance(loss.inputs[name].form(variant.row).domain, Real)
        }
        evaluation = evaluate(with_inputs(call, **large))
        assert evaluation.value.isfinite(), variant.params
        assert all(gradient.isfinite().all() for gradient in evaluation.gradients.values()), variant.params


GROWS = {"ppo_clip"}
"""Losses whose exact value at scores of 1e4 is beyond float32."""
