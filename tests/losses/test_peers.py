"""Losses and the programs of other libraries that define them: values and gradients to the last digits."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import ndcg_score
from torch import Tensor
from torch.distributions import NegativeBinomial, Poisson

from service.engine.bind import bind
from service.engine.call import Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE


@pytest.mark.parametrize("k", [None, 3])
def test_tied_scores_count_as_in_scikit_learn(k: int | None) -> None:
    rng = np.random.default_rng(3)
    scores, relevances = rng.integers(0, 4, (30, 12)) / 4, rng.integers(0, 5, (30, 12)).astype(float)
    found = _evaluated(
        "ndcg",
        {"scores": torch.tensor(scores), "targets": torch.tensor(relevances)},
        {"ties": "average", "gain": "linear", "k": k},
    )
    assert found.value.item() == pytest.approx(1 - ndcg_score(relevances, scores, k=k), abs=1e-12)


def test_ten_thousand_equal_scores_keep_their_digits_in_float32() -> None:
    rng = torch.Generator().manual_seed(5)
    targets = torch.rand(1, 10_000, generator=rng)
    inputs = {"scores": torch.zeros_like(targets), "targets": targets}
    single, double = (
        _evaluated("ndcg", {n: t.to(dtype) for n, t in inputs.items()}, {"ties": "average"}).value.double()
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single, double, rtol=3e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_binary_labels_are_smoothed_as_in_keras(smoothing: float) -> None:
    rng = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 3, generator=rng, dtype=torch.float64)
    targets = torch.rand(40, 3, generator=rng, dtype=torch.float64).round()
    smooth, weight = (
        targets * (1 - smoothing) + 0.5 * smoothing,
        torch.tensor([0.5, 1, 4], dtype=torch.float64),
    )
    _assert_same(
        "binary_cross_entropy_with_logits",
        {"logits": logits},
        {"targets": targets},
        {"label_smoothing": smoothing, "pos_weight": (0.5, 1.0, 4.0)},
        lambda logits: F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weight),
    )
    _assert_same(
        "binary_cross_entropy",
        {"probabilities": torch.sigmoid(logits)},
        {"targets": targets},
        {"label_smoothing": smoothing},
        lambda probabilities: F.binary_cross_entropy(probabilities, smooth),
    )


def test_a_zero_inflated_likelihood_is_that_of_a_mixture() -> None:
    rng = torch.Generator().manual_seed(5)
    rates = torch.rand(200, generator=rng, dtype=torch.float64) * 5 + 0.1
    shapes = torch.rand(200, generator=rng, dtype=torch.float64) * 3 + 0.1
    logits = 2 * torch.randn(200, generator=rng, dtype=torch.float64)
    targets = torch.poisson(rates, rng) * (torch.rand(200, generator=rng) < 0.7)

    def mixture(log_probabilities: Tensor, logits: Tensor) -> Tensor:
        certain = torch.sigmoid(logits)
        return -(certain * (targets == 0) + (1 - certain) * log_probabilities.exp()).log().mean()

    def poisson(predictions: Tensor, logits: Tensor) -> Tensor:
        return mixture(Poisson(predictions.exp()).log_prob(targets), logits)

    def negative_binomial(predictions: Tensor, dispersions: Tensor, logits: Tensor) -> Tensor:
        log_odds = predictions.log() - dispersions.log()
        return mixture(NegativeBinomial(dispersions, logits=log_odds).log_prob(targets), logits)

    poissons = {"predictions": rates.log(), "logits": logits}
    binomials = {"predictions": rates, "dispersions": shapes, "logits": logits}
    _assert_same("zero_inflated_poisson_nll", poissons, {"targets": targets}, {}, poisson)
    _assert_same(
        "zero_inflated_negative_binomial_nll", binomials, {"targets": targets}, {}, negative_binomial
    )


def test_zeros_that_are_all_but_certain_keep_their_digits_in_float32() -> None:
    inputs = {"predictions": [0.0, -20.0], "logits": [20.0, 0.0], "targets": [0.0, 0.0]}
    found = _evaluated(
        "zero_inflated_poisson_nll", {n: torch.tensor(t) for n, t in inputs.items()}, {}, "none"
    )
    # (1 - p)(1 - e^-1), and half the rate
    expected = torch.tensor([math.exp(-20) * (1 - math.exp(-1)), math.exp(-20) / 2])
    torch.testing.assert_close(found.value, expected, rtol=1e-6, atol=0)


def test_zero_targets_are_out_of_the_mean_and_its_gradient() -> None:
    predictions, targets = torch.tensor([3.0, 5.0, 1.0, -7.0]), torch.tensor([2.0, 0.0, 4.0, 0.0])
    sent = {"predictions": predictions, "targets": targets}
    found = _evaluated("mape", sent, {"skip_zeros": True})
    assert found.value == (50 + 75) / 2
    assert found.gradients["predictions"].tolist() == [25, 0, -12.5, 0]
    weighted = _evaluated(
        "mape", sent, {"skip_zeros": True}, sample_weight=Sent(torch.tensor([1.0, 9.0, 3.0, 9.0]))
    )
    assert weighted.value == (50 + 3 * 75) / 4
    assert _evaluated("mape", {n: t[1::2] for n, t in sent.items()}, {"skip_zeros": True}).value == 0


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (3, 3, 9, 14), (1, 1, 7, 8)])
def test_gmsd_is_that_of_piq(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(5)
    images = torch.rand(shape, generator=rng, dtype=torch.float64)
    targets = (images + torch.rand(shape, generator=rng, dtype=torch.float64)) / 2

    def brightness(images: Tensor) -> Tensor:
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
        return images if images.shape[1] == 1 else torch.einsum("nchw,c->nhw", images, weights)[:, None]

    def strength(images: Tensor) -> Tensor:
        odd = max(images.shape[-1] % 2, images.shape[-2] % 2)
        halved = F.avg_pool2d(F.pad(brightness(images), (0, odd, 0, odd)), 2, 2)
        prewitt = torch.tensor([[-1.0, 0, 1]] * 3, dtype=torch.float64) / 3
        kernels = torch.stack([prewitt, prewitt.T])[:, None]
        return F.conv2d(halved, kernels, padding=1).square().sum(1).sqrt()

    def program(predictions: Tensor) -> Tensor:
        a, b, c = strength(predictions), strength(targets), 170 / 255**2
        similarity = (2 * a * b + c) / (a**2 + b**2 + c)
        return similarity.flatten(1).std(1, correction=0).mean()

    _assert_same("gmsd", {"predictions": images}, {"targets": targets}, {}, program)


def _assert_same(
    loss: str,
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    params: Mapping[str, Any],
    program: Callable[..., Tensor],
) -> None:
    """Compare the mean and its gradients with those of a program of the predictions."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in predictions.items()}
    expected = program(**leaves)
    slopes = torch.autograd.grad(expected, list(leaves.values()))
    found = _evaluated(loss, {**predictions, **targets}, params)
    torch.testing.assert_close(found.value, expected.detach(), rtol=1e-12, atol=1e-14)
    for name, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(found.gradients[name], slope, rtol=1e-11, atol=1e-14)


def _evaluated(
    loss: str, inputs: Mapping[str, Tensor], params: Mapping[str, Any], reduction: Any = "mean", **fields: Any
) -> Evaluation:
    declared = CATALOGUE[loss]
    return evaluate(
        bind(
            Request(
                loss=declared,
                inputs={name: Sent(tensor) for name, tensor in inputs.items()},
                params={**declared.defaults, **params},
                reduction=reduction,
                dtype=inputs[next(iter(inputs))].dtype,
                **fields,
            )
        )
    )
