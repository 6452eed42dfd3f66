"""Boxes: which are valid, that their format does not matter, and what a rotated box's angle means."""

from fractions import Fraction
from math import cos, inf, nan, pi, sin
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
POLYGONS = ["rotated_iou", "rotated_giou"]
AXIS_ALIGNED = [
    n
    for n, loss in CATALOGUE.items()
    if "box_format" in loss.params and {*loss.inputs} == {"boxes", "targets"}
]
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
    """Return the JSON that a client would send."""
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


@pytest.mark.parametrize("name", [*ROTATED, *POLYGONS])
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


def rotated_pairs(seed: int) -> tuple[Tensor, Tensor]:
    """Return pairs of rotated boxes, about half of which overlap."""
    rng = torch.Generator().manual_seed(seed)
    numbers = torch.rand(2, 40, 5, generator=rng, dtype=torch.float64)
    boxes, targets = numbers * torch.tensor([6, 6, 5, 5, 6.3]) + torch.tensor([0, 0, 0.5, 0.5, 0])
    return boxes, targets


@pytest.mark.parametrize("name", POLYGONS)
def test_the_overlap_of_polygons_is_that_of_exchanged_boxes_and_so_are_its_gradients(name: str) -> None:
    boxes, targets = rotated_pairs(0)
    both = run(name, boxes, targets, reduction="none", gradients=("boxes", "targets"))
    exchanged = run(name, targets, boxes, reduction="none", gradients=("boxes", "targets"))
    torch.testing.assert_close(both.value, exchanged.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        both.gradients["boxes"], exchanged.gradients["targets"], rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(
        both.gradients["targets"], exchanged.gradients["boxes"], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", POLYGONS)
def test_gradients_of_polygons_are_differences_of_the_value(name: str) -> None:
    def value(*pair: Tensor) -> Tensor:
        return CATALOGUE[name](*pair).loss

    for seed in range(3):
        boxes, targets = rotated_pairs(seed)
        assert torch.autograd.gradcheck(value, (boxes.requires_grad_(), targets.requires_grad_()))


def test_without_a_turn_the_overlap_of_polygons_is_that_of_boxes() -> None:
    boxes, targets = (each.index_fill(1, torch.tensor(4), 0.0) for each in rotated_pairs(0))
    # sides that coincide, and boxes that touch or are the same
    boxes[:20], targets[:20] = boxes[:20].round().clamp(min=1), targets[:20].round().clamp(min=1)
    boxes[:20, 4], targets[:20, 4], boxes[0] = 0.0, 0.0, targets[0]
    found = run("rotated_iou", boxes, targets, reduction="none")
    plain = run("iou", boxes[:, :4], targets[:, :4], box_format="cxcywh", reduction="none")
    torch.testing.assert_close(found.value, plain.value)
    torch.testing.assert_close(found.gradients["boxes"][20:, :4], plain.gradients["boxes"][20:])
    around = run("giou", boxes[:, :4], targets[:, :4], box_format="cxcywh", reduction="none")
    assert (run("rotated_giou", boxes, targets, reduction="none").value <= around.value + 1e-12).all()


KINKS = {
    "the same": ([0, 0, 4, 2, 0], [0, 0, 4, 2, 0]),
    "the same with its sides swapped": ([0, 0, 4, 2, 0], [0, 0, 2, 4, pi / 2]),
    "moved along a side": ([0, 0, 4, 2, 0], [1, 0, 4, 2, 0]),
    "inside, along three sides": ([1, 0, 2, 2, 0], [0, 0, 4, 2, 0]),
    "inside, in the middle of a side": ([0, 0.5, 2, 1, 0], [0, 0, 4, 2, 0]),
}


@pytest.mark.parametrize("name", POLYGONS)
@pytest.mark.parametrize("pair", KINKS.values(), ids=KINKS)
@pytest.mark.parametrize("turn", [0.0, 0.4, pi / 2])
def test_at_coinciding_sides_the_gradient_is_the_mean_of_both_sides(
    name: str, pair: Any, turn: float
) -> None:
    boxes, targets = (_moved(each, turn) for each in pair)
    found = run(name, [boxes], [targets]).gradients["boxes"][0]
    step = 1e-6 * torch.eye(5, dtype=torch.float64)
    ahead, back = (torch.tensor(boxes, dtype=torch.float64) + sign * step for sign in (1, -1))
    ends = [run(name, each, [targets] * 5, reduction="none").value for each in (ahead, back)]
    torch.testing.assert_close(found, (ends[0] - ends[1]) / 2e-6, rtol=0, atol=1e-6)


def _moved(box: list[float], turn: float) -> list[float]:
    """Return a box turned around the origin, and then shifted."""
    x, y, width, height, angle = box
    c, s = cos(turn), sin(turn)
    return [3 + c * x - s * y, s * x + c * y - 2, width, height, angle + turn]


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


FORMATS = ["xyxy", "xywh", "cxcywh"]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def pixel_boxes(box_format: str) -> Tensor:
    """Return boxes of an image, to a hundredth of a pixel."""
    place, sides = (1900 * torch.rand(400, 4, generator=torch.Generator().manual_seed(5))).split(2, -1)
    place, sides = (place.double() * 100).round() / 100, (sides.double() * 5).round() / 100
    return torch.cat([place, place + sides if box_format == "xyxy" else sides], -1)


@pytest.mark.parametrize("name", AXIS_ALIGNED)
@pytest.mark.parametrize("box_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_perfect_box_has_an_iou_of_1_and_costs_exactly_nothing(
    name: str, box_format: str, dtype: torch.dtype
) -> None:
    boxes = pixel_boxes(box_format)
    fit = run(name, boxes, boxes, box_format=box_format, dtype=dtype, reduction="none")
    assert (fit.value == 0).all()
    assert (fit.aux["iou"] == 1).all()
    assert (fit.gradients["boxes"] == 0).all()


@pytest.mark.parametrize("variant", ["giou", "diou", "ciou"])
def test_a_perfect_box_costs_nothing_under_a_small_power_either(variant: str) -> None:
    boxes = pixel_boxes("cxcywh")
    fit = run("alpha_iou", boxes, boxes, box_format="cxcywh", variant=variant, alpha=0.3, dtype=torch.float32)
    assert fit.value == 0


def test_wise_iou_of_a_perfect_box_is_a_number_in_every_version() -> None:
    box = [[1619.96, 782.16, 27.55, 18.5]]
    for version in (1, 2, 3):
        fit = run("wiou", box, box, box_format="cxcywh", version=version, dtype=torch.float32)
        assert fit.value == 0 and (fit.gradients["boxes"] == 0).all()


@pytest.mark.parametrize("name", AXIS_ALIGNED)
@pytest.mark.parametrize("box_format", FORMATS)
def test_nearly_perfect_boxes_cost_no_less_than_nothing(name: str, box_format: str) -> None:
    boxes = pixel_boxes(box_format)
    noise = torch.randn(boxes.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # the sides stay positive
    moved = boxes * (1 + 1e-7 * noise.clamp(-3, 3))
    assert (
        run(name, moved, boxes, box_format=box_format, dtype=torch.float32, reduction="none").value >= 0
    ).all()


@pytest.mark.parametrize("box_format", FORMATS)
def test_one_minus_iou_of_nearly_equal_boxes_keeps_its_digits_in_float32(box_format: str) -> None:
    boxes = pixel_boxes(box_format).float()
    targets = boxes + torch.tensor([0.001, -0.002, 0.003, 0.001])
    found = run("iou", boxes, targets, box_format=box_format, dtype=torch.float32, reduction="none").value
    for loss, box, target in zip(found.tolist(), boxes.tolist(), targets.tolist(), strict=True):
        assert loss == pytest.approx(float(missed_share(box, target, box_format)), rel=1e-5)


def missed_share(box: list[float], target: list[float], box_format: str) -> Fraction:
    """Return one minus the IoU of two boxes, exactly."""
    areas: list[Fraction] = [Fraction(1)] * 3
    for axis in (0, 1):
        (near, far), (other_near, other_far) = (edges(b, axis, box_format) for b in (box, target))
        shared = max(Fraction(0), min(far, other_far) - max(near, other_near))
        lengths = (far - near, other_far - other_near, shared)
        areas = [area * length for area, length in zip(areas, lengths, strict=True)]
    union = areas[0] + areas[1] - areas[2]
    return (union - areas[2]) / union


def edges(box: list[float], axis: int, box_format: str) -> tuple[Fraction, Fraction]:
    """Return where a box begins and ends along an axis, exactly."""
    first, second = Fraction(box[axis]), Fraction(box[axis + 2])
    if box_format == "xyxy":
        return first, second
    near = first - second / 2 if box_format == "cxcywh" else first
    return near, near + second


@pytest.mark.parametrize("name", ["giou", "diou", "ciou", "eiou", "siou", "bounded_iou", "inner_iou"])
def test_small_boxes_cost_what_large_ones_do(name: str) -> None:
    boxes, targets = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 4, 17, 14]])
    large = run(name, boxes.double(), targets.double())
    small = run(name, boxes.double() / 2**40, targets.double() / 2**40)
    torch.testing.assert_close(small.value, large.value)
    torch.testing.assert_close(small.gradients["boxes"] / 2**40, large.gradients["boxes"])


def test_an_area_that_is_sent_as_eps_is_added_to_the_union() -> None:
    assert run("iou", [[0, 0, 2, 2]], [[0, 0, 2, 4]], eps=2.0).value.item() == pytest.approx(1 - 4 / 10)


@pytest.mark.parametrize("name", ["rotated_kld", "rotated_gwd", "probiou", "kfiou"])
def test_small_rotated_boxes_cost_what_large_ones_do(name: str) -> None:
    unit = torch.tensor([2.0**-30] * 4 + [1.0], dtype=torch.float64)
    boxes = torch.tensor([[0, 0, 8, 4, 0.3]], dtype=torch.float64)
    targets = torch.tensor([[1, 1, 6, 5, -0.2]], dtype=torch.float64)
    params: dict[str, Any] = {"normalize": True} if name == "rotated_gwd" else {}
    large, small = run(name, boxes, targets, **params), run(name, boxes * unit, targets * unit, **params)
    torch.testing.assert_close(small.value, large.value)
    torch.testing.assert_close(small.gradients["boxes"] * unit, large.gradients["boxes"])


@pytest.mark.parametrize("name", ["rotated_kld", "rotated_gwd"])
@pytest.mark.parametrize("fun", ["log1p", "sqrt", "none"])
def test_a_perfect_rotated_box_costs_nothing(name: str, fun: str) -> None:
    box = [[3.0, 4.0, 7.0, 0.3, 0.7]]
    fit = run(name, box, box, fun=fun, dtype=torch.float32)
    assert fit.value == 0 and (fit.gradients["boxes"] == 0).all()


@pytest.mark.parametrize("name", ["quality_focal", "varifocal", "gaussian_focal"])
@pytest.mark.parametrize(
    "params", [{}, {"beta": 0.0}, {"beta": 0.5}, {"gamma": 0.0}, {"alpha": 0.0}], ids=str
)
def test_a_score_that_is_infinitely_right_costs_nothing(name: str, params: dict[str, float]) -> None:
    loss = CATALOGUE[name]
    if not params.keys() <= loss.params.keys():
        pytest.skip("has no such param")
    alone = scored(name, [0.5], [0.0], params)
    found = scored(name, [-inf, 0.5, inf, -1e39], [0.0, 0.0, 1.0, 0.0], params)
    assert found.value == alone.value
    assert found.gradients["logits"].tolist() == [0, alone.gradients["logits"].item(), 0, 0]


def scored(name: str, logits: Any, targets: list[float], params: dict[str, float]) -> Evaluation:
    """Evaluate a loss of scores in float32."""
    loss = CATALOGUE[name]
    inputs = {"logits": sent(logits), "targets": sent(targets)}
    return evaluate(
        bind(Request(loss=loss, inputs=inputs, params={**loss.defaults, **params}, reduction="sum"))
    )


def test_bins_that_are_not_meant_may_have_infinite_scores() -> None:
    found = scored("distribution_focal", [[1.0, -inf, 2.0], [0.0, inf, 2.0]], [0.0, 1.0], {})
    assert found.value.item() == pytest.approx(1.3132617)
    assert found.gradients["logits"].isfinite().all()


def test_balanced_l1_of_small_errors_keeps_its_digits_in_float32() -> None:
    growth = 2.718281828459045**3 - 1
    for error in (1e-3, 1e-5, 1e-7):
        loss = CATALOGUE["balanced_l1"]
        inputs = {"predictions": sent([error]), "targets": sent([0.0])}
        found = evaluate(bind(Request(loss=loss, inputs=inputs, params=loss.defaults)))
        # the first two terms of the series
        exact = 0.5 * growth * error**2 * (1 / 2 - growth * error / 6)
        assert found.value.item() == pytest.approx(exact, rel=1e-3 if error == 1e-3 else 1e-4)
