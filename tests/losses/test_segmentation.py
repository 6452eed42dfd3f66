"""Masks: large images, saturated scores, masks that are empty or full, and scores that are infinite."""

from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE

BINARY = [name for name, loss in CATALOGUE.items() if "binary" in str(loss.params.get("mode", ""))]
MULTICLASS = [
    name
    for name, loss in CATALOGUE.items()
    if "segmentation" in loss.tasks and "multiclass" in str(loss.params)
]


def run(
    name: str, logits: Any, targets: Any, dtype: torch.dtype = torch.float32, **params: Any
) -> Evaluation:
    """Evaluate a loss of masks."""
    loss = CATALOGUE[name]
    params = {**loss.defaults, **loss.example.params, **params}
    inputs = {"logits": sent(logits), "targets": sent(targets)}
    return evaluate(bind(Request(loss=loss, inputs=inputs, params=params, dtype=dtype)))


def sent(numbers: Any) -> Sent:
    """Return a tensor as a client sends it."""
    return Sent(numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=torch.float64))


def test_generalised_dice_of_a_large_image_is_not_swamped_by_smooth() -> None:
    truth = (torch.arange(1024**2) % 2).reshape(1, 1024, 1024)
    wrong = torch.stack([truth, 1 - truth], 1) * 9.0
    # each class is hit with the probability that a score of 9 leaves to the other
    assert run("generalized_dice", wrong, truth).value.item() == pytest.approx(0.99988, abs=1e-5)


def test_generalised_dice_of_an_empty_mask_that_is_predicted_full_is_one() -> None:
    assert run("generalized_dice", [[9.0, 9.0]], [[0.0, 0.0]], mode="binary").value.item() == pytest.approx(
        1, abs=1e-4
    )


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "generalized_dice", "log_cosh_dice", "mcc"])
@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_a_good_fit_keeps_its_digits_in_float32(name: str, mode: str) -> None:
    score = 14 + torch.arange(8.0)
    truth = torch.arange(8) % 2
    signed = score * (2 * truth - 1)
    if mode == "binary":
        logits, targets = signed[None], truth[None].double()
    else:
        logits, targets = torch.stack([-signed / 2, signed / 2])[None], truth[None]
    params: dict[str, Any] = {} if name == "mcc" else {"smooth": 0.0}
    found = run(name, logits, targets, mode=mode, **params)
    exact = run(name, logits.double(), targets, torch.float64, mode=mode, **params)
    torch.testing.assert_close(found.value.double(), exact.value, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        found.gradients["logits"].double(), exact.gradients["logits"], rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_the_logarithm_of_a_nearly_perfect_overlap_is_what_it_lacks(name: str) -> None:
    lost = run(name, [[14.0, -15.0]], [[1.0, 0.0]], mode="binary", smooth=0.0).value
    surprise = run(name, [[14.0, -15.0]], [[1.0, 0.0]], mode="binary", smooth=0.0, log_loss=True).value
    torch.testing.assert_close(surprise, lost, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", MULTICLASS)
def test_a_class_that_is_infinitely_right_has_the_limit_of_value_and_gradient(name: str) -> None:
    shape = (1, 3, 2, 2) if "H" in str(CATALOGUE[name].inputs) else (1, 3, 4)
    logits = torch.linspace(-2, 2, 12).reshape(shape)
    targets = torch.tensor([0, 1, 2, 1]).reshape(1, *shape[2:])
    first = (0, 0, *[0] * (len(shape) - 2))
    infinite, large = logits.clone(), logits.clone()
    infinite[first], large[first] = inf, 1e4
    found, near = run(name, infinite, targets), run(name, large, targets)
    torch.testing.assert_close(found.value, near.value)
    torch.testing.assert_close(found.gradients["logits"], near.gradients["logits"])


@pytest.mark.parametrize("name", BINARY)
def test_pixels_that_are_infinitely_right_have_the_limit_of_value_and_gradient(name: str) -> None:
    shape = (1, 2, 2) if "H" in str(CATALOGUE[name].inputs) else (1, 4)
    targets = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(shape)
    infinite = torch.tensor([-inf, inf, 0.4, 0.7]).reshape(shape)
    found = run(name, infinite, targets, mode="binary")
    near = run(name, infinite.clamp(-1e4, 1e4), targets, mode="binary")
    torch.testing.assert_close(found.value, near.value)
    torch.testing.assert_close(found.gradients["logits"], near.gradients["logits"])


def test_centre_lines_vanish_from_objects_wider_than_twice_the_erosions() -> None:
    for width, seen in ((8, True), (9, False)):
        truth = torch.zeros(1, 24, 40)
        truth[0, 6 : 6 + width, 2:38] = 1
        missed = run("soft_cldice", torch.full_like(truth, -30), truth, mode="binary", iterations=3)
        assert (missed.value > 0.5) == seen
