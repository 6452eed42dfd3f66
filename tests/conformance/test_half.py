"""Half types: outputs of models in half precision are valid, and targets that are marks or indices are not rounded."""

import base64
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.domains import Facts, Simplex
from service.catalogue.registry import AnyLoss
from service.engine.bind import bind
from service.engine.call import HALF, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from tests.client import Client
from tests.conformance.cases import Variant, variants
from tests.infer import infer_binary, outputs

half = pytest.mark.parametrize("dtype", HALF, ids=str)
ROWS = 2000


def rows(dtype: torch.dtype, classes: int) -> Tensor:
    """Return probabilities as a softmax in a half type gives them."""
    logits = 4 * torch.randn(ROWS, classes, generator=torch.Generator().manual_seed(4))
    return logits.softmax(-1).to(dtype)


@half
@pytest.mark.parametrize("classes", [2, 3, 10, 1000, 50257])
def test_what_a_softmax_in_half_gives_is_a_distribution(dtype: torch.dtype, classes: int) -> None:
    uniform = torch.full((1, classes), 1 / classes).to(dtype)
    for probabilities in (rows(dtype, classes)[: 10**6 // classes], uniform):
        assert Simplex().admits(probabilities.float(), Facts({}, {}, {}, dtype)).all()


def test_a_sum_that_is_off_by_a_thousandth_is_refused_in_single() -> None:
    off = torch.tensor([[0.5, 0.5 + 2**-9]])
    assert not Simplex().admits(off, Facts({}, {}, {}, torch.float32)).any()
    assert Simplex().admits(off, Facts({}, {}, {}, torch.bfloat16)).all()


def has_distributions(loss: AnyLoss) -> bool:
    """Return whether an input of a loss may hold distributions."""
    return any(isinstance(form.domain, Simplex) for spec in loss.inputs.values() for form in spec.forms)


@half
@pytest.mark.parametrize(
    "loss", list(filter(has_distributions, CATALOGUE.values())), ids=lambda loss: loss.name
)
def test_each_loss_takes_distributions_in_half(loss: AnyLoss, dtype: torch.dtype) -> None:
    taken = 0
    for variant in variants(loss):
        for seed in range(20):
            request = variant.request(seed, dtype=torch.float32)
            sent = {name: Sent(_to_half(variant, name, s, dtype)) for name, s in request.inputs.items()}
            taken += sent.keys() == bind(request._replace(inputs=sent)).inputs.keys()
            # numbers without a dtype, of a client that asks for arithmetic in half
            doubles = {name: Sent(s.tensor.double(), addressable=True) for name, s in sent.items()}
            taken += sent.keys() == bind(request._replace(inputs=doubles, dtype=dtype)).inputs.keys()
    assert taken >= 40


def _to_half(variant: Variant, name: str, sent: Sent, dtype: torch.dtype) -> Tensor:
    """Round the distributions among the inputs."""
    domain = variant.loss.inputs[name].form(variant.row).domain
    return sent.tensor.to(dtype) if isinstance(domain, Simplex) else sent.tensor


@half
def test_every_door_takes_distributions_in_half(client: Client, dtype: torch.dtype) -> None:
    drawn = rows(dtype, 4)
    off = (drawn.double().sum(-1) - 1).abs()
    assert off.max() > (1e-3 if dtype == torch.bfloat16 else 1e-4)
    probabilities = drawn[off.argmax()]
    sent = {"probabilities": probabilities, "targets": probabilities}
    inputs = {name: _packed(tensor) for name, tensor in sent.items()}
    single = client.evaluate("js_div", inputs=inputs)
    assert single.json()["value"] == 0, single.text
    item = {"loss": "js_div", "inputs": inputs}
    batch = client.post("/v1/batch", json={"items": [item, item]}).json()
    assert [each.get("value") for each in batch["results"]] == [0, 0], batch
    answer = infer_binary(client, "js_div", sent)
    assert outputs(answer)["value"].item() == 0


def _packed(tensor: Tensor) -> dict[str, Any]:
    """Write a tensor as its bytes."""
    data = base64.b64encode(bytes(tensor.view(torch.uint8).tolist())).decode()
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "data": data}


MARKING = [
    (loss, name)
    for loss in CATALOGUE.values()
    for name, spec in loss.inputs.items()
    if any(form.domain.exact for form in spec.forms)
]


def test_some_inputs_mark_or_index() -> None:
    assert {loss.name for loss, _ in MARKING} >= {"gaussian_focal", "distribution_focal", "varifocal", "dice"}


@half
@pytest.mark.parametrize(("loss", "name"), MARKING, ids=[f"{loss.name}-{name}" for loss, name in MARKING])
def test_targets_that_mark_or_index_keep_their_digits(loss: AnyLoss, name: str, dtype: torch.dtype) -> None:
    found = 0
    for variant in variants(loss):
        request = variant.request(dtype=dtype)
        if not loss.inputs[name].form(variant.row).domain.exact:
            continue
        found += 1
        sent = request.inputs[name].tensor
        assert torch.equal(bind(request).inputs[name], sent.float())
        weighed = request._replace(sample_weight=Sent(torch.tensor(1.0)))
        assert torch.equal(bind(weighed).inputs[name], sent.float())
    assert found


@half
def test_the_neighbour_of_a_peak_is_no_centre(dtype: torch.dtype) -> None:
    logits, targets = [[0.0, 0.0]], [[1.0, 0.9999]]
    negative = _value("gaussian_focal", logits, targets, dtype)[0, 1].item()
    assert negative == pytest.approx(1e-16 * 0.25 * math.log(2), rel=0.01, abs=1e-7)


@half
def test_the_last_bin_is_not_lost_to_rounding(dtype: torch.dtype) -> None:
    # bfloat16 would make 4098 of it, float16 4096
    bins, place = 4098, 4096.75
    logits = [[0.0] * (bins - 2) + [3.0, 1.0]]
    rest = math.log((bins - 2) + math.exp(3) + math.exp(1))
    expected = 0.25 * (rest - 3) + 0.75 * (rest - 1)
    assert _value("distribution_focal", logits, [place], dtype).item() == pytest.approx(expected, rel=0.01)


@half
def test_a_small_overlap_marks_a_positive(dtype: torch.dtype) -> None:
    small = _value("varifocal", [0.0], [1e-9], dtype)
    assert small.item() == pytest.approx(0, abs=1e-7)


def _value(loss: str, logits: object, targets: object, dtype: torch.dtype) -> Tensor:
    """Return the unreduced loss of numbers as JSON has them."""
    sent = {"logits": logits, "targets": targets}
    inputs = {name: Sent(torch.tensor(numbers, dtype=torch.float64)) for name, numbers in sent.items()}
    declared = CATALOGUE[loss]
    request = Request(loss=declared, inputs=inputs, params=declared.defaults, reduction="none", dtype=dtype)
    return evaluate(bind(request)).value
