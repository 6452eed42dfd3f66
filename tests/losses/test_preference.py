"""Preference losses: the programs that people port from, and params that a type does not have."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Invalid
from tests.oracles.sequence.preference import TYPES

NAMES = (
    "chosen_log_probabilities",
    "rejected_log_probabilities",
    "reference_chosen_log_probabilities",
    "reference_rejected_log_probabilities",
)
SMOOTHED: dict[str, float] = {"sigmoid": 0.1, "robust": 0.1, "exo_pair": 1e-3}


@pytest.mark.parametrize("loss_type", TYPES)
def test_a_type_is_the_loss_of_trl_with_its_gradients(loss_type: str) -> None:
    smoothing = SMOOTHED.get(loss_type, 0.0)
    params = {"loss_type": loss_type, "beta": 0.3, "label_smoothing": smoothing}
    call = _call(
        -9 * torch.rand(4, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64), params
    )
    inputs = [call.inputs[name].clone().requires_grad_() for name in NAMES]
    expected = _as_in_trl(inputs, loss_type, 0.3, smoothing)
    slopes = torch.autograd.grad(expected.mean(), inputs)
    found = evaluate(call)
    torch.testing.assert_close(found.value, expected.mean().detach(), rtol=1e-12, atol=1e-12)
    for name, slope in zip(NAMES, slopes, strict=True):
        torch.testing.assert_close(found.gradients[name], slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss_type", TYPES)
def test_leads_of_ten_thousand_nats_stay_finite_in_float32(loss_type: str) -> None:
    params = {"loss_type": loss_type, "beta": 1.0, "label_smoothing": SMOOTHED.get(loss_type, 0.0)}
    far = torch.tensor([[-1e4, 0.0], [0.0, -1e4], [0.0, 0.0], [0.0, 0.0]])
    found = evaluate(_call(far, params))
    assert found.value.isfinite()
    assert all(gradient.isfinite().all() for gradient in found.gradients.values())


@pytest.mark.parametrize("loss_type", TYPES)
def test_an_impossible_answer_has_a_gradient_or_an_infinite_one(loss_type: str) -> None:
    params = {"loss_type": loss_type, "label_smoothing": SMOOTHED.get(loss_type, 0.0)}
    impossible = torch.tensor([[-torch.inf, -1.0], [-1.0, -torch.inf], [-1.0, -1.0], [-1.0, -1.0]])
    found = evaluate(_call(impossible, params, reduction="none"))
    assert not found.value.isnan().any()
    assert not any(gradient.isnan().any() for gradient in found.gradients.values())


@pytest.mark.parametrize("loss_type", TYPES)
def test_smoothing_is_refused_where_it_has_no_effect(loss_type: str) -> None:
    assert _faults({"loss_type": loss_type, "label_smoothing": 0.1}) == (
        [] if loss_type in SMOOTHED else ["/params/label_smoothing"]
    )


def test_params_of_another_type_are_refused() -> None:
    with pytest.raises(Invalid) as raised:
        _call(torch.full((4, 2), -1.0), {"loss_type": "ipo", "label_smoothing": 0.1})
    assert raised.value.faults[0].detail == (
        "Expected 0 for this loss_type, where it has no effect: it is for sigmoid, robust and exo_pair; "
        "got 0.1 with ipo."
    )
    assert _faults({"discopop_tau": 0.1}) == ["/params/discopop_tau"]
    assert _faults({"loss_type": "discopop", "discopop_tau": 0.1}) == []
    # the divergence from a certain preference is infinite
    assert _faults({"loss_type": "exo_pair"}) == ["/params/label_smoothing"]


def _faults(params: dict[str, Any]) -> list[str]:
    """Return the pointers of what is refused."""
    try:
        _call(torch.full((4, 2), -1.0), params)
    except Invalid as problem:
        return [fault.pointer for fault in problem.faults]
    return []


def _call(rows: Tensor, params: dict[str, Any], **fields: Any) -> Call:
    loss = CATALOGUE["dpo"]
    sent = {name: Sent(row) for name, row in zip(NAMES, rows, strict=True)}
    params = {**loss.defaults, **params}
    return bind(Request(loss=loss, inputs=sent, params=params, dtype=rows.dtype, gradients=NAMES, **fields))


def _as_in_trl(inputs: list[Tensor], loss_type: str, beta: float, label_smoothing: float) -> Tensor:
    """Return the losses of pairs as the trainer computes them."""
    chosen, rejected = inputs[0] - inputs[2], inputs[1] - inputs[3]
    ours, theirs = F.logsigmoid(beta * (chosen - rejected)), F.logsigmoid(-beta * (chosen - rejected))
    smoothing = torch.tensor(label_smoothing, dtype=torch.float64)
    match loss_type:
        case "sigmoid":
            return -(1 - smoothing) * ours - smoothing * theirs
        case "hinge":
            return torch.relu(1 - beta * (chosen - rejected))
        case "ipo":
            return (chosen - rejected - 1 / (2 * beta)) ** 2
        case "robust":
            return (-(1 - smoothing) * ours + smoothing * theirs) / (1 - 2 * smoothing)
        case "exo_pair":
            return ours.exp() * (ours - torch.log1p(-smoothing)) + theirs.exp() * (theirs - smoothing.log())
        case "nca_pair":
            both = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
            return -F.logsigmoid(beta * chosen) - 0.5 * both
        case "apo_zero":
            return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)
        case "apo_down":
            return torch.sigmoid(beta * chosen) + 1 - ours.exp()
        case "sppo_hard":
            return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
        case _:
            lead = beta * (chosen - rejected)
            blend = torch.sigmoid(lead / 0.05)
            return -ours * (1 - blend) + torch.exp(-lead) * blend
