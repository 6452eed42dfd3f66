"""Criteria of whole detectors: their gradients, their shards, and what they refuse."""

from math import pi
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Call, Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Fault, Invalid

SIZES = {
    "multibox": {"B": 4, "A": 30, "M": 9, "C": 4},
    "task_aligned": {"B": 4, "A": 60, "M": 9, "C": 4, "K": 5},
}
every_criterion = pytest.mark.parametrize("name", SIZES)
SHARED = ("anchors", "anchor_points", "strides")
"""Inputs that all images have in common."""


def drawn(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Draw the inputs of a criterion."""
    loss = CATALOGUE[name]
    return draw_inputs(loss, loss.defaults, sizes=SIZES[name], seed=seed)


def call(name: str, inputs: dict[str, Tensor], **fields: Any) -> Call:
    """Bind a call in float64; ``fields`` are its options and params."""
    loss = CATALOGUE[name]
    params = {**loss.defaults, **{key: fields.pop(key) for key in list(fields) if key in loss.params}}
    sent = {key: Sent(tensor) for key, tensor in inputs.items()}
    options: dict[str, Any] = {"dtype": torch.float64, **fields}
    return bind(Request(loss=loss, inputs=sent, params=params, **options))


def run(name: str, inputs: dict[str, Tensor], **fields: Any) -> Evaluation:
    return evaluate(call(name, inputs, **fields))


def refusal(name: str, inputs: dict[str, Tensor]) -> Fault:
    with pytest.raises(Invalid) as refused:
        call(name, inputs)
    (fault,) = refused.value.faults
    return fault


def images(inputs: dict[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    """Return the inputs of some images."""
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), inputs["counts"].cumsum(0)])
    true = slice(int(ends[start]), int(ends[end]))
    rows = {"labels": true, "true_boxes": true, **dict.fromkeys(SHARED, slice(None))}
    return {key: tensor[rows.get(key, slice(start, end))] for key, tensor in inputs.items()}


@every_criterion
@pytest.mark.parametrize("seed", range(4))
def test_shards_of_images_add_up_to_the_batch(name: str, seed: int) -> None:
    inputs = drawn(name, seed)
    whole = run(name, inputs)
    shards = [images(inputs, *ends) for ends in ((0, 1), (1, 4))]
    sums = [run(name, shard, reduction="sum") for shard in shards]
    divisor = sum(_divisor(name, each) for each in sums)
    torch.testing.assert_close(sum(each.value for each in sums) / divisor, whole.value)
    for key, gradient in whole.gradients.items():
        parts = torch.cat([each.gradients[key] for each in sums])
        torch.testing.assert_close(parts / divisor, gradient)


def _divisor(name: str, found: Evaluation) -> Tensor:
    """Return what images add to the divisor of the batch: `task_aligned` itself divides by at least 1."""
    return (found.aux["assignment"] >= 0).sum() if name == "multibox" else found.aux["target_scores"].sum()


@every_criterion
def test_a_batch_without_any_true_box_is_answered(name: str) -> None:
    inputs = drawn(name)
    none = {
        "labels": inputs["labels"][:0],
        "true_boxes": inputs["true_boxes"][:0],
        "counts": torch.zeros(4).long(),
    }
    found = run(name, {**inputs, **none})
    assert (found.aux["assignment"] == -1).all()
    everywhere = F.softplus(inputs["logits"]).sum() / 2
    expected = {"multibox": torch.zeros(()).double(), "task_aligned": everywhere}[name]
    torch.testing.assert_close(found.value, expected)
    assert all(gradient.isfinite().all() for gradient in found.gradients.values())


@every_criterion
@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
def test_the_format_of_boxes_does_not_matter(name: str, box_format: str) -> None:
    inputs = drawn(name)
    changed = {
        key: _written(t, box_format) if key in ("true_boxes", "anchors") else t for key, t in inputs.items()
    }
    found, expected = run(name, changed, box_format=box_format), run(name, inputs)
    torch.testing.assert_close(found.value, expected.value)
    assert torch.equal(found.aux["assignment"], expected.aux["assignment"])


def _written(corners: Tensor, box_format: str) -> Tensor:
    """Write boxes of two corners in another format."""
    first, second = corners.chunk(2, -1)
    start = first if box_format == "xywh" else (first + second) / 2
    return torch.cat([start, second - first], -1)


@every_criterion
def test_counts_have_to_cover_all_true_boxes(name: str) -> None:
    inputs = drawn(name)
    fault = refusal(name, {**inputs, "counts": torch.tensor([1, 2, 0, 5])})
    assert (fault.pointer, fault.code) == ("/inputs/counts", "condition")
    assert (
        fault.detail
        == "Expected counts that sum to M, the number of true objects; got a sum of 8 with M = 9."
    )


def test_the_background_is_no_label() -> None:
    inputs = drawn("multibox")
    fault = refusal("multibox", {**inputs, "labels": torch.zeros(9).long()})
    assert fault.pointer == "/inputs/labels"
    assert fault.detail == "Expected integers from 1 to C - 1 (C = 4); got 0 at [0]."


@pytest.mark.parametrize("params", [{}, {"fit": "ciou", "top_k": 3}, {"alpha": 1.0, "beta": 2.0}], ids=str)
def test_targets_are_constants_to_the_gradient(params: dict[str, Any]) -> None:
    inputs = drawn("task_aligned")
    found = run("task_aligned", inputs, **params)
    leaves = {key: inputs[key].clone().requires_grad_() for key in ("logits", "distributions")}
    value = _by_torch({**inputs, **leaves}, found.aux["assignment"], found.aux["target_scores"])
    expected = torch.autograd.grad(value, [*leaves.values()])
    torch.testing.assert_close(found.value, value.detach(), rtol=1e-12, atol=1e-12)
    for key, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found.gradients[key], gradient, rtol=1e-12, atol=1e-12)


def _by_torch(inputs: dict[str, Tensor], assignment: Tensor, scores: Tensor) -> Tensor:
    """Return the criterion of an assignment by torch's own losses and the formulas of the papers."""
    positive = assignment >= 0
    owner, weight = assignment[positive], scores[positive]
    targets = torch.zeros_like(inputs["logits"])
    targets[(*positive.nonzero().unbind(1), inputs["labels"][owner])] = weight
    of_class = F.binary_cross_entropy_with_logits(inputs["logits"], targets, reduction="sum")
    points = inputs["anchor_points"].expand(len(positive), -1, -1)[positive]
    stride = inputs["strides"].expand(len(positive), -1)[positive][:, None]
    sides, true = inputs["distributions"][positive], inputs["true_boxes"][owner]
    distances = stride * (sides.softmax(-1) * torch.arange(sides.shape[-1])).sum(-1)
    boxes = torch.cat([points - distances[:, :2], points + distances[:, 2:]], 1)
    of_box = (weight * _complete(boxes, true)).sum()
    wanted = torch.cat([points - true[:, :2], true[:, 2:] - points], 1) / stride
    wanted = wanted.clamp(max=sides.shape[-1] - 1)
    low = wanted.floor().clamp(max=sides.shape[-1] - 2).long()
    logs = sides.log_softmax(-1)
    lower, upper = logs.gather(-1, low[..., None])[..., 0], logs.gather(-1, low[..., None] + 1)[..., 0]
    of_sides = (weight * -((low + 1 - wanted) * lower + (wanted - low) * upper).mean(1)).sum()
    return (0.5 * of_class + 7.5 * of_box + 1.5 * of_sides) / weight.sum().clamp(min=1)


def _complete(boxes: Tensor, true: Tensor) -> Tensor:
    """Return the CIoU loss of pairs of corners."""
    near, far = torch.maximum(boxes[:, :2], true[:, :2]), torch.minimum(boxes[:, 2:], true[:, 2:])
    both = (far - near).clamp(min=0).prod(1)
    sides, true_sides = boxes[:, 2:] - boxes[:, :2], true[:, 2:] - true[:, :2]
    iou = both / (sides.prod(1) + true_sides.prod(1) - both)
    around = torch.maximum(boxes[:, 2:], true[:, 2:]) - torch.minimum(boxes[:, :2], true[:, :2])
    offset = (boxes[:, :2] + boxes[:, 2:] - true[:, :2] - true[:, 2:]) / 2
    angles = [torch.atan(each[:, 0] / each[:, 1]) for each in (sides, true_sides)]
    v = (2 / pi * (angles[0] - angles[1])).square()
    return 1 - iou + offset.square().sum(1) / around.square().sum(1) + (v / (1 - iou + v)).detach() * v
