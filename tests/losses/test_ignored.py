"""Pixels that do not count: whatever they hold, they change nothing, and beside the others they are as if cut off."""

from math import inf, nan
from typing import Any

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

SOME = [loss for loss in CATALOGUE.values() if loss.defaults.get("ignore_index", 0) is None]
"""Losses in which no value is ignored by default."""
NOTHING = {"unified_focal": 0.25 * 1e-7**0.5, "focal_tversky": 1e-7**0.75}
"""What an image costs in which nothing counts, where that is not 0: the least that an image can cost."""
every = pytest.mark.parametrize("loss", SOME, ids=lambda loss: loss.name)
SIDE = 6


def modes(loss: AnyLoss) -> list[str | None]:
    """Return the modes of a loss, None if it has none."""
    return ["multiclass", "multilabel", "binary"] if "mode" in loss.params else [None]


def drawn(loss: AnyLoss, mode: str | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and targets of two images."""
    rng = torch.Generator().manual_seed(seed)
    classes = () if mode == "binary" or str(loss.inputs["logits"].forms[0].dims) in ("...", "N ...") else (3,)
    logits = 3 * torch.randn(2, *classes, SIDE, SIDE, generator=rng, dtype=torch.float64)
    if mode == "multiclass" or (mode is None and classes):
        return logits, torch.randint(3, (2, SIDE, SIDE), generator=rng).double()
    return logits, torch.randint(2, logits.shape, generator=rng).double()


def call(
    loss: AnyLoss,
    logits: Tensor,
    targets: Tensor,
    ignore_index: int | None,
    mode: str | None,
    *,
    dtype: torch.dtype = torch.float64,
    reduction: Reduction = "none",
) -> Call:
    """Bind a call that asks for the gradient by the logits, and by soft targets."""
    params: dict[str, Any] = {**loss.defaults, "ignore_index": ignore_index}
    params |= {"mode": mode} if mode else {}
    params |= (
        {"distance_matrix": ((0, 1, 2), (1, 0, 1), (2, 1, 0))} if "distance_matrix" in loss.params else {}
    )
    inputs = {"logits": Sent(logits), "targets": Sent(targets)}
    request = Request(
        loss=loss, inputs=inputs, params=params, gradients=True, dtype=dtype, reduction=reduction
    )
    soft = loss.inputs["targets"].form(loss.rows_for(params)[0]).domain.kind == "float"
    return bind(request._replace(gradients=("logits", "targets") if soft else ("logits",)))


def cells(targets: Tensor) -> Tensor:
    """Return a scattered choice of pixels, with some that touch each other and the border."""
    rng = torch.Generator().manual_seed(7)
    return torch.rand(targets.shape, generator=rng) < 0.3


def over(chosen: Tensor, logits: Tensor) -> Tensor:
    """Return pixels as elements of the logits."""
    return chosen if chosen.dim() == logits.dim() else chosen.unsqueeze(1).expand_as(logits)


def assert_close(found: Evaluation, expected: Evaluation, close: float = 1e-12) -> None:
    """Compare values and gradients; gradients relative to the largest."""
    torch.testing.assert_close(found.value, expected.value, rtol=close, atol=close)
    for name, gradient in expected.gradients.items():
        slack = close * max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(found.gradients[name], gradient, rtol=close, atol=slack)


@every
@pytest.mark.parametrize("junk", [nan, inf, -inf, 1e300])
def test_what_is_ignored_has_no_influence_and_no_gradient(loss: AnyLoss, junk: float) -> None:
    for mode in modes(loss):
        logits, targets = drawn(loss, mode)
        chosen = cells(targets)
        targets = torch.where(chosen, 255, targets)
        spoiled = torch.where(over(chosen, logits), junk, logits)
        plain, wild = (call(loss, z, targets, 255, mode) for z in (logits, spoiled))
        expected = evaluate(plain)
        for found in (evaluate(wild), evaluate_together(stacked([plain, wild]))[1]):
            assert found.value.isfinite().all()
            assert_close(found, expected)
            for name, gradient in found.gradients.items():
                there = over(chosen, logits) if name == "logits" else chosen
                assert (gradient[there] == 0).all(), name
                assert (gradient[~there] != 0).any() or name == "targets"


@every
def test_a_border_that_is_ignored_is_as_if_it_were_cut_off(loss: AnyLoss) -> None:
    for mode in modes(loss):
        logits, targets = drawn(loss, mode)
        marked = targets.clone()
        marked[..., -2:], marked[..., 0, :] = -1, -1
        cut = (..., slice(1, None), slice(None, -2))
        found = evaluate(call(loss, logits, marked, -1, mode))
        expected = evaluate(call(loss, logits[cut], targets[cut], None, mode))
        per_element = found.value.dim() == logits.dim() == targets.dim()
        kept = {name: gradient[cut] for name, gradient in found.gradients.items()}
        value = found.value[cut] if per_element else found.value
        assert_close(found._replace(value=value, gradients=kept), expected)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("ignored", [-100, 257, 2**17 + 1])
def test_the_mean_is_over_what_counts_in_every_dtype(loss: AnyLoss, dtype: torch.dtype, ignored: int) -> None:
    close = 1e-12 if dtype == torch.float64 else 1e-5 if dtype == torch.float32 else 1e-2
    for mode in modes(loss):
        logits, targets = drawn(loss, mode)
        marked = targets.clone()
        marked[..., -2:] = ignored
        found = evaluate(call(loss, logits, marked, ignored, mode, dtype=dtype, reduction="mean"))
        whole = call(loss, logits[..., :-2], targets[..., :-2], None, mode, dtype=dtype, reduction="mean")
        assert found.value.item() == pytest.approx(evaluate(whole).value.item(), rel=close, abs=close)


@every
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_an_image_in_which_nothing_counts_costs_as_much_as_a_perfect_one(
    loss: AnyLoss, reduction: Reduction
) -> None:
    for mode in modes(loss):
        logits, targets = drawn(loss, mode)
        ignored = torch.full_like(targets, 9)
        found = evaluate(call(loss, logits, ignored, 9, mode, reduction=reduction))
        torch.testing.assert_close(found.value, torch.full_like(found.value, NOTHING.get(loss.name, 0.0)))
        assert all((gradient == 0).all() for gradient in found.gradients.values())


@every
def test_a_value_that_no_pixel_has_changes_nothing(loss: AnyLoss) -> None:
    for mode in modes(loss):
        logits, targets = drawn(loss, mode)
        assert_close(
            evaluate(call(loss, logits, targets, 99, mode)), evaluate(call(loss, logits, targets, None, mode))
        )


@every
def test_gradients_of_what_counts_are_the_derivative_of_the_value(loss: AnyLoss) -> None:
    for mode in modes(loss):
        logits, targets = drawn(loss, mode)
        bound = call(loss, logits, torch.where(cells(targets), 5, targets), 5, mode)

        def value(scores: Tensor, bound: Call = bound) -> Tensor:
            return loss.terms({**bound.inputs, "logits": scores}, bound.params).loss

        assert torch.autograd.gradcheck(value, (bound.inputs["logits"].clone().requires_grad_(),)), mode


@every
def test_the_value_to_ignore_is_no_target_unless_it_is_named(loss: AnyLoss) -> None:
    mode = modes(loss)[0]
    logits, targets = drawn(loss, mode)
    targets.view(-1)[3] = 255
    call(loss, logits, targets, 255, mode)
    for other in (None, 254):
        with pytest.raises(Invalid) as refused:
            call(loss, logits, targets, other, mode)
        assert [fault.pointer for fault in refused.value.faults] == ["/inputs/targets"]


@pytest.mark.parametrize("name", ["boundary", "hausdorff_dt"])
def test_distances_lead_across_what_is_ignored_to_the_nearest_pixel_that_counts(name: str) -> None:
    # an object, three pixels that do not count, and the background
    targets = torch.tensor([[1.0, 1.0, 5.0, 5.0, 5.0, 0.0]])
    logits = torch.tensor([[40.0, 40.0, 40.0, 40.0, 40.0, 40.0]], dtype=torch.float64)
    found = evaluate(call(CATALOGUE[name], logits, targets, 5, "binary")).value.item()
    # the background is 4 from the object, whose pixels are 5 and 4 from it; a predicted mask that is full has no contour
    assert found == pytest.approx((-4 - 3 + 4) / 3 if name == "boundary" else 4**2 / 3, abs=1e-9)


def test_a_line_does_not_end_where_pixels_are_ignored() -> None:
    line = torch.zeros(1, 7, 12, dtype=torch.float64)
    line[0, 2:5] = 1
    gap = line.clone()
    gap[0, :, 5:7] = 3
    logits = 20 * line - 10
    whole, broken = (
        evaluate(call(CATALOGUE["soft_cldice"], logits, targets, 3, "binary")).value.item()
        for targets in (line, gap)
    )
    assert whole == pytest.approx(0, abs=1e-3)
    assert broken == pytest.approx(0, abs=1e-3)
