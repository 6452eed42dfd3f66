"""Losses of sets: what is matched, how terms are divided, and that calls of other counts may be evaluated together."""

from typing import Any

import orjson
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs
from service.engine.bind import bind
from service.engine.call import Call, Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_alike
from service.losses import CATALOGUE
from service.problems import Fault, Invalid
from tests.client import Client
from tests.infer import infer_binary

DETR, MASK_SET = CATALOGUE["detr"], CATALOGUE["mask_set"]
SIZES = {"B": 3, "Q": 9, "K": 6, "M": 7}


def call(
    inputs: Any,
    loss: AnyLoss = DETR,
    dtype: torch.dtype = torch.float64,
    gradients: Any = True,
    **params: Any,
) -> Call:
    """Bind a call, of detr by default."""
    sent = {name: Sent(torch.as_tensor(value)) for name, value in inputs.items()}
    params = {**loss.defaults, **params}
    return bind(Request(loss=loss, inputs=sent, params=params, gradients=gradients, dtype=dtype))


def run(inputs: Any, loss: AnyLoss = DETR, **params: Any) -> Evaluation:
    return evaluate(call(inputs, loss, **params))


def drawn(
    seed: int = 0, row: int = 0, counts: Any = None, loss: AnyLoss = DETR, pixels: Any = (2,), **sizes: int
) -> dict[str, Tensor]:
    """Draw inputs, of detr by default."""
    inputs = draw_inputs(loss, loss.defaults, sizes={**SIZES, "...": pixels, **sizes}, row=row, seed=seed)
    return {**inputs, "counts": inputs["counts"] if counts is None else torch.tensor(counts)}


def refused(inputs: Any, loss: AnyLoss = DETR, **params: Any) -> Fault:
    with pytest.raises(Invalid) as raised:
        run(inputs, loss, **params)
    (fault,) = raised.value.faults
    return fault


@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("num_boxes", [None, 3.5])
@pytest.mark.parametrize("counts", [[2, 4, 1], [0, 7, 0]])
def test_detr_equals_a_criterion_written_as_libraries_do(focal: bool, num_boxes: Any, counts: Any) -> None:
    params: dict[str, Any] = {"num_boxes": num_boxes, "focal_alpha": 0.3, "focal_gamma": 1.5}
    for seed in range(3):
        inputs = drawn(seed, counts=counts)
        leaves = {name: inputs[name].clone().requires_grad_() for name in ("logits", "boxes")}
        expected = criterion(**{**inputs, **leaves}, focal=focal, **params)
        expected["loss"].backward()
        found = run(inputs, classification="sigmoid_focal" if focal else "softmax", **params)
        assert found.aux["matching"].tolist() == expected["matching"]
        torch.testing.assert_close(found.value, expected["loss"].detach(), rtol=1e-12, atol=1e-12)
        for name in ("class", "l1", "giou"):
            torch.testing.assert_close(found.aux[name], expected[name].detach(), rtol=1e-12, atol=1e-12)
        for name, leaf in leaves.items():
            torch.testing.assert_close(found.gradients[name], leaf.grad, rtol=1e-12, atol=1e-12)


def criterion(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    true_boxes: Tensor,
    counts: Tensor,
    *,
    focal: bool,
    num_boxes: float | None,
    focal_alpha: float,
    focal_gamma: float,
) -> dict[str, Any]:
    """Return the loss of DETR image by image, with boxes by their corners."""
    no_object = logits.shape[-1] - 1
    total = max(float(len(labels)) if num_boxes is None else num_boxes, 1.0)
    longest = int(counts.max())
    classes = torch.full(logits.shape[:2], no_object)
    onehot = torch.zeros_like(logits)
    matching: list[list[int]] = []
    l1 = giou = logits.new_zeros(())
    for image, (some, true) in enumerate(
        zip(labels.split(counts.tolist()), true_boxes.split(counts.tolist()), strict=True)
    ):
        with torch.no_grad():
            if focal:
                p = logits[image].sigmoid()[:, some]
                negative = (1 - focal_alpha) * p**focal_gamma * -(1 - p).log()
                of_class = focal_alpha * (1 - p) ** focal_gamma * -p.log() - negative
            else:
                of_class = -logits[image].softmax(-1)[:, some]
            overlaps = generalized(boxes[image][:, None], true)
            cost = of_class + 5 * torch.cdist(boxes[image], true, p=1) - 2 * overlaps
        queries, objects = linear_sum_assignment(cost)
        row = [-1] * longest
        for query, each in zip(queries.tolist(), objects.tolist(), strict=True):
            row[each] = query
        matching.append(row)
        classes[image, queries] = some[objects]
        onehot[image, queries, some[objects]] = 1
        matched, targets = boxes[image, queries], true[objects]
        l1 = l1 + F.l1_loss(matched, targets, reduction="sum") / total
        giou = giou + (1 - generalized(matched, targets)).sum() / total
    if focal:
        p = logits.sigmoid()
        right, balance = (
            p * onehot + (1 - p) * (1 - onehot),
            focal_alpha * onehot + (1 - focal_alpha) * (1 - onehot),
        )
        of_class = (balance * (1 - right) ** focal_gamma * -right.log()).sum() / total
    else:
        weight = torch.ones(logits.shape[-1], dtype=logits.dtype)
        weight[no_object] = 0.1
        of_class = F.cross_entropy(logits.transpose(1, 2), classes, weight)
    loss = of_class + 5 * l1 + 2 * giou
    return {"loss": loss, "matching": matching, "class": of_class, "l1": l1, "giou": giou}


def generalized(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the GIoU of boxes by their corners."""
    (centre, sides), (other_centre, other_sides) = boxes.chunk(2, -1), others.chunk(2, -1)
    low, high = centre - sides / 2, centre + sides / 2
    other_low, other_high = other_centre - other_sides / 2, other_centre + other_sides / 2
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (other_high - other_low).prod(-1) - shared
    enclosing = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).prod(-1)
    return shared / union - (enclosing - union) / enclosing


@pytest.mark.parametrize("num_masks", [None, 3.5])
@pytest.mark.parametrize("counts", [[2, 4, 1], [0, 7, 0]])
def test_mask_set_equals_a_criterion_written_as_its_authors_do(num_masks: Any, counts: Any) -> None:
    for seed in range(3):
        inputs = drawn(seed, counts=counts, loss=MASK_SET, pixels=(6, 5))
        inputs["true_masks"] = inputs["true_masks"].round()
        leaves = {name: inputs[name].clone().requires_grad_() for name in ("logits", "mask_logits")}
        expected = mask_criterion(**{**inputs, **leaves}, num_masks=num_masks)
        expected["loss"].backward()
        found = run(inputs, MASK_SET, num_masks=num_masks)
        assert found.aux["matching"].tolist() == expected["matching"]
        for name in ("class", "mask", "dice"):
            torch.testing.assert_close(found.aux[name], expected[name].detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.value, expected["loss"].detach(), rtol=1e-12, atol=1e-12)
        for name, leaf in leaves.items():
            torch.testing.assert_close(found.gradients[name], leaf.grad, rtol=1e-12, atol=1e-12)


def mask_criterion(
    logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    true_masks: Tensor,
    counts: Tensor,
    *,
    num_masks: float | None,
) -> dict[str, Any]:
    """Return the loss of MaskFormer, image by image, with costs by matrix products."""
    total = max(float(len(labels)) if num_masks is None else num_masks, 1.0)
    classes = torch.full(logits.shape[:2], logits.shape[-1] - 1)
    matching: list[list[int]] = []
    mask = dice = logits.new_zeros(())
    sizes = counts.tolist()
    for image, (some, true) in enumerate(
        zip(labels.split(sizes), true_masks.flatten(1).split(sizes), strict=True)
    ):
        scores = mask_logits[image].flatten(1)
        with torch.no_grad():
            p = scores.sigmoid()
            positive = (
                0.25
                * (1 - p) ** 2
                * F.binary_cross_entropy_with_logits(scores, torch.ones_like(p), reduction="none")
            )
            negative = (
                0.75
                * p**2
                * F.binary_cross_entropy_with_logits(scores, torch.zeros_like(p), reduction="none")
            )
            of_mask = (positive @ true.T + negative @ (1 - true).T) / true.shape[1]
            of_dice = 1 - (2 * p @ true.T + 1) / (p.sum(-1)[:, None] + true.sum(-1) + 1)
            cost = 20 * of_mask - logits[image].softmax(-1)[:, some] + of_dice
        queries, objects = linear_sum_assignment(cost)
        row = [-1] * int(counts.max())
        for query, each in zip(queries.tolist(), objects.tolist(), strict=True):
            row[each] = query
        matching.append(row)
        classes[image, queries] = some[objects]
        matched, targets = scores[queries], true[objects]
        p = matched.sigmoid()
        right = p * targets + (1 - p) * (1 - targets)
        surprise = F.binary_cross_entropy_with_logits(matched, targets, reduction="none")
        balance = 0.25 * targets + 0.75 * (1 - targets)
        mask = mask + (balance * (1 - right) ** 2 * surprise).mean(1).sum() / total
        dice = dice + (1 - (2 * (p * targets).sum(1) + 1) / (p.sum(1) + targets.sum(1) + 1)).sum() / total
    weight = torch.ones(logits.shape[-1], dtype=logits.dtype)
    weight[-1] = 0.1
    of_class = F.cross_entropy(logits.transpose(1, 2), classes, weight)
    loss = of_class + 20 * mask + dice
    return {"loss": loss, "matching": matching, "class": of_class, "mask": mask, "dice": dice}


def test_whole_masks_are_points_in_any_order() -> None:
    inputs = drawn(loss=MASK_SET, pixels=(4, 3))
    points = {name: t.flatten(-2) if "mask" in name else t for name, t in inputs.items()}
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    points = {name: t[..., order] if "mask" in name else t for name, t in points.items()}
    whole, some = run(inputs, MASK_SET), run(points, MASK_SET)
    torch.testing.assert_close(whole.value, some.value)
    torch.testing.assert_close(
        whole.gradients["mask_logits"].flatten(-2)[..., order], some.gradients["mask_logits"]
    )


def test_masks_that_cannot_be_matched_are_refused() -> None:
    inputs = drawn(counts=[2, 3, 2], loss=MASK_SET)
    inputs["mask_logits"][1, 2, 0] = torch.nan
    fault = refused(inputs, MASK_SET)
    assert (fault.pointer, fault.code) == ("/inputs/mask_logits", "domain")
    assert fault.detail.endswith("got nan for query 2 and true object 2.")


def test_a_cost_that_is_not_finite_has_the_layer_and_the_object_as_sent() -> None:
    inputs = drawn(row=1, counts=[2, 3, 2], L=2)
    inputs["logits"][1, 1, 4, 0] = torch.nan
    assert refused(inputs).detail.endswith("got nan for query 4 and true object 2 in layer 1.")


def test_calls_of_other_counts_are_evaluated_together_each_with_its_own_matching() -> None:
    calls = [
        call(drawn(seed, counts=counts)) for seed, counts in enumerate(([7, 0, 0], [3, 2, 2], [1, 5, 1]))
    ]
    together = evaluate_alike(calls)
    for one, other in zip(together, map(evaluate, calls), strict=True):
        assert isinstance(one, Evaluation)
        assert torch.equal(one.aux["matching"], other.aux["matching"])
        torch.testing.assert_close(one.value, other.value, rtol=1e-12, atol=1e-12)
    assert [list(evaluate(one).aux["matching"].shape) for one in calls] == [[3, 7], [3, 3], [3, 5]]


def test_each_layer_is_matched_on_its_own_and_the_value_is_their_sum() -> None:
    inputs = drawn(row=1, L=3)
    found = run(inputs)
    layers = [
        run({**inputs, "logits": inputs["logits"][layer], "boxes": inputs["boxes"][layer]})
        for layer in range(3)
    ]
    torch.testing.assert_close(found.value, torch.stack([layer.value for layer in layers]).sum())
    for name in ("matching", "class", "l1", "giou"):
        torch.testing.assert_close(found.aux[name], torch.stack([layer.aux[name] for layer in layers]))
    for name in ("logits", "boxes"):
        gradients = torch.stack([layer.gradients[name] for layer in layers])
        torch.testing.assert_close(found.gradients[name], gradients)


def test_with_num_boxes_the_box_terms_of_shards_add_up_to_those_of_the_batch() -> None:
    whole = drawn(counts=[2, 4, 1])
    parts = [
        {"logits": slice(0, 1), "boxes": slice(0, 1), "labels": slice(0, 2), "true_boxes": slice(0, 2)},
        {"logits": slice(1, 3), "boxes": slice(1, 3), "labels": slice(2, 7), "true_boxes": slice(2, 7)},
    ]
    shards = [
        {
            **{name: whole[name][some] for name, some in part.items()},
            "counts": whole["counts"][part["logits"]],
        }
        for part in parts
    ]
    expected = run(whole, classification="sigmoid_focal")
    found = [run(shard, classification="sigmoid_focal", num_boxes=7.0) for shard in shards]
    torch.testing.assert_close(found[0].value + found[1].value, expected.value)


def test_no_true_box_at_all_may_be_sent_as_empty_lists(client: Client) -> None:
    inputs = {
        "logits": [[[0.0, 1.0], [2.0, 0.5]]],
        "boxes": [[[0.5, 0.5, 0.1, 0.1]] * 2],
        "labels": [],
        "true_boxes": [],
        "counts": [0],
    }
    answer = client.evaluate("detr", inputs=inputs).json()
    assert answer["aux"]["matching"] == [[]]
    assert answer["aux"]["l1"] == answer["aux"]["giou"] == 0
    assert answer["gradients"]["boxes"] == [[[0.0] * 4] * 2]
    assert answer["value"] == pytest.approx((0.313262 + 1.701413) / 2, rel=1e-5)


def test_of_more_true_boxes_than_queries_some_are_left_over() -> None:
    found = run(drawn(B=1, Q=3, counts=[7]))
    (row,) = found.aux["matching"].tolist()
    assert sorted(row) == [-1, -1, -1, -1, 0, 1, 2]


def test_counts_must_sum_to_the_true_boxes() -> None:
    fault = refused({**drawn(), "counts": torch.tensor([2, 2, 2])})
    assert (fault.pointer, fault.code) == ("/inputs/counts", "condition")
    assert (
        fault.detail
        == "Expected counts that sum to M, the number of true objects; got a sum of 6 with M = 7."
    )


@pytest.mark.parametrize(("classification", "last"), [("softmax", 4), ("sigmoid_focal", 5)])
def test_the_last_column_is_a_class_of_a_sigmoid_only(classification: str, last: int) -> None:
    inputs = drawn()
    run({**inputs, "labels": torch.full((7,), last)}, classification=classification)
    fault = refused({**inputs, "labels": torch.full((7,), last + 1)}, classification=classification)
    assert fault.pointer == "/inputs/labels"


@pytest.mark.parametrize(("name", "place"), [("boxes", (1, 2, 3)), ("logits", (1, 2, 3))])
def test_a_cost_that_is_not_finite_is_refused_with_the_input_that_is_to_blame(name: str, place: Any) -> None:
    inputs = drawn(counts=[2, 3, 2])
    inputs[name][place] = torch.nan
    fault = refused(inputs)
    assert (fault.pointer, fault.code) == (f"/inputs/{name}", "domain")
    # of the second image, whose first object is the third
    assert fault.detail == (
        "Expected numbers for which the cost of every match is finite; got nan for query 2 and true object 2."
    )


def test_an_infinite_logit_of_another_class_is_matched() -> None:
    inputs = drawn()
    inputs["logits"][..., 0] = -torch.inf
    found = run({**inputs, "labels": inputs["labels"].clamp(min=1)})
    assert found.value.isfinite()
    assert found.gradients["logits"].isfinite().all()


def test_only_the_call_that_cannot_be_matched_is_refused_of_several() -> None:
    spoiled = drawn(1, counts=[2, 3, 2])
    spoiled["boxes"][0, 0, 0] = torch.nan
    good = call(drawn(counts=[2, 3, 2]))
    one, other, last = evaluate_alike([good, call(spoiled), good])
    assert isinstance(other, Invalid)
    assert isinstance(one, Evaluation)
    assert isinstance(last, Evaluation)
    torch.testing.assert_close(one.value, evaluate(good).value)


def test_every_door_points_at_the_input_that_cannot_be_matched(client: Client) -> None:
    inputs = {name: t.float() if t.is_floating_point() else t for name, t in drawn().items()}
    # finite as it is sent, infinite in float32
    lists = {**{name: tensor.tolist() for name, tensor in inputs.items()}}
    lists["boxes"][0][0][0] = 1e300
    single = client.evaluate("detr", inputs=lists)
    assert single.status_code == 422
    assert [fault["pointer"] for fault in single.json()["errors"]] == ["/inputs/boxes"]
    item = {"loss": "detr", "inputs": {name: tensor.tolist() for name, tensor in inputs.items()}}
    batch = client.post(
        "/v1/batch", content=orjson.dumps({"items": [item, {"loss": "detr", "inputs": lists}]})
    )
    good, bad = batch.json()["results"]
    assert "value" in good
    assert "/inputs/boxes" in orjson.dumps(bad).decode()
    inputs["boxes"][0, 0, 0] = torch.nan
    protocol = infer_binary(client, "detr", inputs)
    assert protocol.status_code == 400
    assert [fault["pointer"] for fault in protocol.json()["errors"]] == ["/inputs/1"]


def test_items_of_other_counts_in_a_batch_answer_as_they_do_alone(client: Client) -> None:
    items = [
        {"inputs": {name: tensor.tolist() for name, tensor in drawn(seed, counts=counts).items()}}
        for seed, counts in enumerate(([7, 0, 0], [3, 2, 2], [1, 5, 1]))
    ]
    batch = client.post("/v1/batch", json={"defaults": {"loss": "detr"}, "items": items}).json()["results"]
    for found, item in zip(batch, items, strict=True):
        alone = client.evaluate("detr", **item).json()
        assert found["aux"]["matching"] == alone["aux"]["matching"]
        assert found["value"] == pytest.approx(alone["value"], rel=1e-6)


def test_matches_do_not_depend_on_the_dtype() -> None:
    inputs = {name: t.half() if t.is_floating_point() else t for name, t in drawn(Q=30, M=20).items()}
    found = [
        evaluate(call(inputs, dtype=dtype)).aux["matching"].tolist()
        for dtype in (torch.float64, torch.float32, torch.float16)
    ]
    assert found[0] == found[1] == found[2]


@pytest.fixture(scope="module")
def client() -> Client:
    return Client()
