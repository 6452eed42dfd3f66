"""A request is checked against its loss's declaration, and every fault is reported with its place."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.losses import CATALOGUE
from service.problems import MOST_FAULTS, Fault, Invalid

EMPTY = Sent(torch.zeros(0), addressable=True, any_rank=True)
NAN, INFINITE = float("nan"), float("inf")


def request(
    loss: str, inputs: dict[str, Any], params: dict[str, Any] | None = None, **fields: Any
) -> Request:
    """Make a request whose tensors came as JSON, unless they are tensors already."""
    entry = CATALOGUE[loss]
    sent = {name: as_sent(value) for name, value in inputs.items()}
    return Request(loss=entry, inputs=sent, params={**entry.defaults, **(params or {})}, **fields)


def as_sent(value: Any) -> Sent:
    if isinstance(value, Sent):
        return value
    if isinstance(value, Tensor):
        return Sent(value)
    return Sent(torch.tensor(value, dtype=torch.float64), addressable=True)


def bound(loss: str, inputs: dict[str, Any], params: dict[str, Any] | None = None, **fields: Any) -> Call:
    return bind(request(loss, inputs, params, **fields))


def faults(
    loss: str, inputs: dict[str, Any], params: dict[str, Any] | None = None, **fields: Any
) -> list[Any]:
    with pytest.raises(Invalid) as raised:
        bind(request(loss, inputs, params, **fields))
    for fault in raised.value.faults:
        assert fault.detail.startswith("Expected "), fault
        assert "; got " in fault.detail, fault
    return [(fault.pointer, fault.code) for fault in raised.value.faults]


MSE: dict[str, Any] = {"predictions": [1.0, 2.0], "targets": [0.0, 0.0]}
LOGITS = [[1.0, 2.0], [3.0, 4.0]]
DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read_as_the_kind_that_an_input_wants(dtype: torch.dtype) -> None:
    ones = torch.tensor([1, 0]).to(dtype)
    assert bound("mse", {"predictions": ones, "targets": ones}).inputs["predictions"].dtype == torch.float32
    indices = bound("cross_entropy", {"logits": LOGITS, "targets": ones}).inputs["targets"]
    assert (indices.dtype, indices.tolist()) == (torch.int64, [1, 0])
    scores = {"scores": [[1.0, 2.0]], "targets": [[1.0, 0.0]], "mask": ones[None]}
    mask = bound("lambdarank", scores).inputs["mask"]
    assert (mask.dtype, mask.tolist()) == (torch.bool, [[True, False]])


@pytest.mark.parametrize("wrong", [0.5, -0.5, NAN, INFINITE, 2.0**63, -(2.0**64)])
def test_a_fraction_is_no_index(wrong: float) -> None:
    assert faults("cross_entropy", {"logits": LOGITS, "targets": [0.0, wrong]}) == [
        ("/inputs/targets/1", "kind")
    ]


@pytest.mark.parametrize("wrong", [0.5, 2.0, -1.0, NAN])
def test_a_mask_holds_0_and_1(wrong: float) -> None:
    scores = {"scores": [[1.0, 2.0]], "targets": [[1.0, 0.0]], "mask": [[1.0, wrong]]}
    assert faults("lambdarank", scores) == [("/inputs/mask/0/1", "kind")]


def test_an_index_is_quoted_with_all_its_digits() -> None:
    targets = Sent(torch.tensor([0, 2**53 + 1]), addressable=True)
    with pytest.raises(Invalid) as raised:
        bound("cross_entropy", {"logits": LOGITS, "targets": targets})
    assert raised.value.faults[0].detail.endswith("got 9007199254740993.")


def test_targets_are_finite_and_predictions_need_not_be() -> None:
    assert faults("mse", {**MSE, "targets": [0.0, INFINITE]}) == [("/inputs/targets/1", "domain")]
    assert bound("mse", {**MSE, "predictions": [NAN, INFINITE]}).inputs["predictions"].isnan()[0]


def test_half_types_are_rounded_and_carried_in_float32() -> None:
    predictions = bound("mse", {**MSE, "predictions": [1 + 2**-9, 1e6]}, dtype=torch.float16).inputs[
        "predictions"
    ]
    assert (predictions.dtype, predictions.tolist()) == (torch.float32, [1 + 2**-9, INFINITE])


def test_a_param_beyond_the_dtype_becomes_infinite() -> None:
    assert bound("huber", MSE, {"delta": 1e39}).params["delta"] == INFINITE
    assert bound("huber", MSE, {"delta": 1e39}, dtype=torch.float64).params["delta"] == 1e39


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([1.0, 2.0], [[1.0], [2.0]]),
        ([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]),
        (3.0, [[3.0]]),
        ([[2.0]], [[2.0]]),
    ],
)
def test_a_sample_weight_broadcasts_from_the_left(weight: Any, expected: Any) -> None:
    inputs = {"predictions": [[1.0] * 3] * 2, "targets": [[0.0] * 3] * 2}
    found = bound("mse", inputs, sample_weight=as_sent(weight)).sample_weight
    assert found is not None
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("weight", "fault"),
    [
        ([1.0, 2.0, 3.0], ("/sample_weight", "shape")),
        ([[1.0, 2.0]], ("/sample_weight", "shape")),
        (EMPTY, ("/sample_weight", "shape")),
        ([1.0, -1e-9], ("/sample_weight/1", "domain")),
        ([INFINITE, 1.0], ("/sample_weight/0", "domain")),
        (torch.tensor([1.0, NAN]), ("/sample_weight", "domain")),
    ],
)
def test_sample_weights_that_are_none(weight: Any, fault: Any) -> None:
    assert faults("mse", MSE, sample_weight=as_sent(weight)) == [fault]


def test_an_empty_weight_never_stands_for_one_element() -> None:
    one = {"predictions": [1.0], "targets": [0.0]}
    assert faults("mse", one, sample_weight=EMPTY) == [("/sample_weight", "shape")]


@pytest.mark.parametrize(
    ("reduction", "shape"), [("mean", ()), ("sum", ()), ("none", (2,))], ids=["mean", "sum", "none"]
)
def test_an_upstream_gradient_has_the_values_shape(reduction: str, shape: tuple[int, ...]) -> None:
    assert bound("mse", MSE, reduction=reduction, grad_output=Sent(torch.ones(shape))).grad_output is not None
    for other in ((1,), (2, 1), (3,), ()):
        if other != shape:
            upstream = Sent(torch.ones(other))
            assert faults("mse", MSE, reduction=reduction, grad_output=upstream) == [
                ("/grad_output", "shape")
            ]


def test_empty_arrays_take_the_rank_that_is_wanted() -> None:
    nothing = {"predictions": torch.zeros(0, 3), "targets": EMPTY}
    call = bound("mse", nothing, reduction="none", sample_weight=EMPTY, grad_output=EMPTY)
    assert call.inputs["targets"].shape == (0, 3)
    assert call.sample_weight is not None
    assert call.sample_weight.shape == (0, 3)
    assert call.grad_output is not None
    assert call.grad_output.shape == (0, 3)
    assert faults("mse", {"predictions": 1.0, "targets": EMPTY}) == [("/inputs/targets", "shape")]


def test_gradients_are_of_floating_inputs() -> None:
    indices = {"logits": LOGITS, "targets": [0.0, 1.0]}
    assert bound("cross_entropy", indices).gradients_of == ("logits",)
    assert faults("cross_entropy", indices, gradients=("targets",)) == [("/gradients/0", "gradient")]
    probabilities = {"logits": LOGITS, "targets": [[0.5, 0.5], [1.0, 0.0]]}
    assert bound("cross_entropy", probabilities, gradients=("targets",)).gradients_of == ("targets",)


def test_gradients_named_twice_are_one() -> None:
    assert bound("mse", MSE, gradients=("targets", "predictions", "targets")).gradients_of == (
        "targets",
        "predictions",
    )
    assert bound("mse", MSE, gradients=()).gradients_of == ()


def test_an_optional_input_must_be_sent_to_be_differentiated() -> None:
    mse = CATALOGUE["mse"]
    inputs = {**mse.inputs, "targets": replace(mse.inputs["targets"], optional=True)}
    asked = request("mse", {"predictions": [1.0]}, gradients=("targets",))
    asked = asked._replace(loss=replace(mse, inputs=inputs))
    with pytest.raises(Invalid) as raised:
        bind(asked)
    [fault] = raised.value.faults
    assert fault.detail == "Expected an input that is sent; got 'targets'."


def test_what_could_not_be_decoded_is_told_once() -> None:
    known = [Fault("/inputs/predictions/0", "type", "Expected a number; got null.")]
    with pytest.raises(Invalid) as raised:
        bind(request("mse", {"targets": [0.0]}, gradients=("predictions",)), known)
    assert list(raised.value.faults) == known


def test_a_million_wrong_names_are_not_a_million_faults() -> None:
    assert len(faults("mse", MSE, gradients=("x",) * 1_000_000)) == MOST_FAULTS


def test_faults_of_all_parts_are_told_together() -> None:
    found = faults(
        "cross_entropy",
        {"logits": LOGITS, "targets": [0.0, 5.0]},
        {"weight": (1.0, -1.0)},
        gradients=("x",),
        sample_weight=as_sent([-1.0, 1.0]),
        grad_output=as_sent([1.0]),
    )
    assert set(found) == {
        ("/inputs/targets/1", "domain"),
        ("/params/weight/1", "domain"),
        ("/gradients/0", "gradient"),
        ("/sample_weight/0", "domain"),
        ("/grad_output", "shape"),
    }
