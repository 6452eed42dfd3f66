"""Boxes: which are valid, that their format does not matter, and what a rotated box's angle means."""

from math import inf, nan, pi
from typing import Any

import pytest
import torch
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Fault, Invalid

ROTATED = ["rotated_kld", "rotated_gwd", "probiou", "kfiou"]
AXIS_ALIGNED = [n for n, loss in CATALOGUE.items() if "box_format" in loss.params and n != "repulsion"]
TARGET = [[0.0, 0.0, 1.0, 1.0]]


def run(name: str, boxes: Any, targets: Any, **fields: Any) -> Evaluation:
    """Evaluate a loss of pairs of boxes; ``fields`` are its options in float64, and its params."""
    loss = CATALOGUE[name]
    params = {**loss.defaults, **loss.example.params}
    params |= {key: fields.pop(key) for key in list(fields) if key in loss.params}
    options: dict[str, Any] = {"dtype": torch.float64, **fields}
    inputs = {"boxes": sent(boxes), "targets": sent(targets)}
    return evaluate(bind(Request(loss=loss, inputs=inputs, params=params, **options)))


def sent(numbers: Any) -> Sent:
    """Return what a JSON client sends."""
    tensor = numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=torch.float64)
    return Sent(tensor, addressable=True, any_rank=tensor.numel() == 0)


def refusal(*args: Any, **fields: Any) -> Fault:
    with pytest.raises(Invalid) as refused:
        run(*args, **fields)
    (fault,) = refused.value.faults
    return fault


@pytest.mark.parametrize(
    ("box_format", "box", "place"),
    [
        ("xyxy", [3, 0, 1, 1], 2),
        ("xyxy", [0, 3, 1, 1], 3),
        ("xywh", [3, 3, 1, -1], 3),
        ("cxcywh", [0, 0, -1, 1], 2),
    ],
)
def test_a_box_with_a_negative_side_is_refused_among_predictions_and_targets(
    box_format: str, box: list[float], place: int
) -> None:
    fault = refusal("giou", [box], TARGET, box_format=box_format)
    assert (fault.pointer, fault.code) == (f"/inputs/boxes/0/{place}", "domain")
    assert fault.detail.endswith(f"got the box {box}.")
    assert refusal("giou", TARGET, [box], box_format=box_format).pointer == f"/inputs/targets/0/{place}"


def test_a_corner_before_the_other_is_no_fault_where_it_is_a_side() -> None:
    assert run("iou", [[3, 3, 1, 1]], [[3, 3, 1, 1]], box_format="xywh").value < 1e-6


@pytest.mark.parametrize("name", AXIS_ALIGNED)
@pytest.mark.parametrize("number", [nan, inf, -inf])
def test_predictions_that_are_not_finite_propagate_and_targets_are_refused(name: str, number: float) -> None:
    for place in range(4):
        box = list(TARGET[0])
        box[place] = number
        run(name, [box], TARGET)
        assert refusal(name, TARGET, [box]).pointer == f"/inputs/targets/0/{place}"


@pytest.mark.parametrize("name", AXIS_ALIGNED)
def test_an_image_without_objects_costs_nothing(name: str) -> None:
    assert run(name, [], [], reduction="sum").value == 0
    empty = run(name, [], [], reduction="none")
    assert empty.value.shape[0] == 0 and empty.gradients["boxes"].shape == (0, 4)
    assert refusal(name, [], []).code == "empty"


@pytest.mark.parametrize("name", AXIS_ALIGNED)
def test_the_format_changes_neither_the_value_nor_the_derivative(name: str) -> None:
    corners = torch.tensor([[0, 0, 10, 10], [1, 2, 4, 9.0]], dtype=torch.float64)
    targets = torch.tensor([[5, 4, 17, 14], [3, 1, 5, 6.0]], dtype=torch.float64)
    plain = run(name, corners, targets)
    # rows of the map from each format to corners
    one, half = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64) / 2
    for box_format, matrix in {
        "xywh": torch.cat([torch.cat([one, 0 * one], 1), torch.cat([one, one], 1)]),
        "cxcywh": torch.cat([torch.cat([one, -half], 1), torch.cat([one, half], 1)]),
    }.items():
        to_format = matrix.inverse().T
        found = run(name, corners @ to_format, targets @ to_format, box_format=box_format)
        torch.testing.assert_close(found.value, plain.value)
        torch.testing.assert_close(found.gradients["boxes"], plain.gradients["boxes"] @ matrix)


@pytest.mark.parametrize("name", ROTATED)
def test_numbers_that_name_the_same_rotated_box_give_the_same_loss_and_gradient(name: str) -> None:
    targets = [[0.5, -0.3, 5.0, 4.0, -0.3]]
    plain = run(name, [[1.0, 2.0, 6.0, 3.0, 0.4]], targets)
    for turn in (pi, -pi, 4 * pi):
        turned = run(name, [[1.0, 2.0, 6.0, 3.0, 0.4 + turn]], targets)
        torch.testing.assert_close(turned.value, plain.value)
        torch.testing.assert_close(turned.gradients["boxes"], plain.gradients["boxes"])
    swapped = run(name, [[1.0, 2.0, 3.0, 6.0, 0.4 - pi / 2]], targets)
    torch.testing.assert_close(swapped.value, plain.value)
    torch.testing.assert_close(swapped.gradients["boxes"][:, [0, 1, 3, 2, 4]], plain.gradients["boxes"])


@pytest.mark.parametrize("name", ROTATED)
def test_a_square_has_no_angle_gradient(name: str) -> None:
    gradient = run(name, [[1.0, 2.0, 4.0, 4.0, 0.4]], [[0.0, 1.0, 5.0, 3.0, -0.3]]).gradients["boxes"]
    assert gradient[0, 4].abs() < 1e-12 and gradient[0, 2:4].abs().min() > 1e-3


@pytest.mark.parametrize("side", [0.0, -1.0])
def test_a_rotated_box_without_a_side_is_refused(side: float) -> None:
    fault = refusal("rotated_kld", [[0.0, 0.0, 1.0, side, 0.3]], [[0.0, 0.0, 1.0, 1.0, 0.3]])
    assert fault.pointer == "/inputs/boxes/0/3"


def test_the_wasserstein_distance_of_nearly_equal_boxes_keeps_its_digits_in_float32() -> None:
    boxes, targets = [[0.0, 0.0, 400.0, 300.0, 0.5]], [[0.0, 0.0, 400.1, 300.1, 0.5]]
    exact = run("rotated_gwd", boxes, targets, fun="none").value
    rounded = run("rotated_gwd", boxes, targets, fun="none", dtype=torch.float32).value
    assert exact == pytest.approx(2 * 0.1**2 / 4)
    # 400.1 itself is rounded to six digits of its difference from 400
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-3)
