"""Metrics of images beside scipy's filters, our losses and the textbook's matrix square root."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.signal import convolve2d
from torchmetrics.functional.image import peak_signal_noise_ratio

from service.catalogue.metric import Undefined
from service.catalogue.table import Array
from service.losses import CATALOGUE
from tests.client import Client
from tests.metrics.helpers import (
    assert_rows_depend_on_their_sample_alone,
    each_of,
    reason,
    selected,
    value_of,
)


def pictures(side: int = 40, channels: int = 2, offset: float = 0.0) -> dict[str, Array]:
    """Return smooth images and noisy copies of them, from 0 to 1 above an offset."""
    rng = np.random.default_rng(0)
    targets = rng.random((3, channels, side, side + 3)).cumsum(-1)
    targets = targets / targets.max() + offset
    return {"predictions": 0.8 * targets + 0.2 * (rng.random(targets.shape) + offset), "targets": targets}


def plain_ssim(image: Array, other: Array, data_range: float) -> float:
    """Return the mean over whole windows of one channel, by a convolution with the window in two dimensions."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def smooth(one: Array) -> Array:
        return convolve2d(one, weights, mode="valid")

    mean, mean_of_other = smooth(image), smooth(other)
    variance, other_variance = smooth(image**2) - mean**2, smooth(other**2) - mean_of_other**2
    covariance = smooth(image * other) - mean * mean_of_other
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    above = (2 * mean * mean_of_other + c1) * (2 * covariance + c2)
    return float((above / ((mean**2 + mean_of_other**2 + c1) * (variance + other_variance + c2))).mean())


@pytest.mark.parametrize("scale", [1, 255])
def test_structural_similarity_is_that_of_whole_windows(scale: int) -> None:
    sent = {name: one * scale for name, one in pictures().items()}
    expected = [
        np.mean([plain_ssim(*channels, scale) for channels in zip(first, second, strict=True)])
        for first, second in zip(*sent.values(), strict=True)
    ]
    np.testing.assert_allclose(each_of("ssim", sent, data_range=float(scale)), expected, rtol=1e-10)
    assert value_of("ssim", sent, data_range=float(scale)) == pytest.approx(np.mean(expected), rel=1e-10)


@pytest.mark.parametrize(("name", "side"), [("ssim", 40), ("ms_ssim", 180)])
def test_similarities_are_one_minus_our_losses(name: str, side: int) -> None:
    sent = pictures(side)
    lost = CATALOGUE[name].function(*(torch.tensor(one) for one in sent.values()))
    np.testing.assert_allclose(each_of(name, sent, data_range=1.0), 1 - lost.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("name", "side"), [("ssim", 20), ("ms_ssim", 180)])
def test_an_image_is_like_itself_and_brightness_takes_no_digits(name: str, side: int) -> None:
    sent = pictures(side)
    same = dict.fromkeys(sent, sent["targets"])
    assert value_of(name, same, data_range=1.0) == pytest.approx(1, abs=1e-14)
    far = pictures(side, offset=1e6)
    lost = CATALOGUE[name].function(*(torch.tensor(one) for one in far.values()))
    np.testing.assert_allclose(each_of(name, far, data_range=1.0), 1 - lost.numpy(), rtol=1e-8)


def test_opposite_images_have_no_similarity_at_several_scales() -> None:
    sent = pictures(180)
    assert value_of("ms_ssim", {**sent, "predictions": 1 - sent["targets"]}, data_range=1.0) == 0


def test_psnr_is_the_mean_of_images() -> None:
    sent = pictures()
    errors = ((sent["predictions"] - sent["targets"]) ** 2).mean((1, 2, 3))
    expected = 10 * np.log10(4 / errors)
    assert value_of("psnr", sent, data_range=2.0) == pytest.approx(expected.mean(), rel=1e-12)
    np.testing.assert_allclose(each_of("psnr", sent, data_range=2.0), expected, rtol=1e-12)
    bytes_sent = {name: (one * 255).astype(np.uint8) for name, one in sent.items()}
    plain = [one.astype(float) for one in bytes_sent.values()]
    decibels = 10 * np.log10(255**2 / ((plain[0] - plain[1]) ** 2).mean((1, 2, 3)))
    assert value_of("psnr", bytes_sent, data_range=255.0) == pytest.approx(decibels.mean(), rel=1e-12)


def test_psnr_like_torchmetrics_is_that_of_the_mean_error() -> None:
    sent = pictures()
    tensors = [torch.tensor(one) for one in sent.values()]
    for data_range in (0.7, 255.0):
        expected = peak_signal_noise_ratio(*tensors, data_range=data_range).item()
        found = value_of("psnr", sent, data_range=data_range, like="torchmetrics")
        assert found == pytest.approx(expected, rel=1e-6)
        twice = value_of("psnr", selected(sent, [0, 0, 1]), data_range=data_range, like="torchmetrics")
        weighed = value_of("psnr", sent, data_range=data_range, like="torchmetrics", weights=[2, 1, 0])
        assert weighed == pytest.approx(twice, rel=1e-12)
    # one image may be exact, but not all
    half = {**sent, "predictions": np.concatenate([sent["targets"][:1], sent["predictions"][1:]])}
    assert "infinite" in reason(value_of("psnr", half, data_range=1.0))
    tensor = torch.tensor(half["predictions"]), tensors[1]
    expected = peak_signal_noise_ratio(*tensor, data_range=1.0).item()
    assert value_of("psnr", half, data_range=1.0, like="torchmetrics") == pytest.approx(expected, rel=1e-6)
    same = {**sent, "predictions": sent["targets"]}
    assert "infinite" in reason(value_of("psnr", same, data_range=1.0, like="torchmetrics"))


def test_an_image_without_an_error_has_no_finite_psnr() -> None:
    sent = pictures()
    sent["predictions"][1] = sent["targets"][1]
    assert isinstance(value_of("psnr", sent, data_range=1.0), Undefined)
    assert np.isnan(each_of("psnr", sent, data_range=1.0)).tolist() == [False, True, False]
    assert value_of("psnr", sent, data_range=1.0, weights=[1, 0, 2]) > 0


@pytest.mark.parametrize(("name", "side"), [("psnr", 20), ("ssim", 20), ("ms_ssim", 180)])
def test_rows_depend_on_their_image_alone(name: str, side: int) -> None:
    assert_rows_depend_on_their_sample_alone(name, pictures(side), data_range=1.0)


def features(count: int, other: int, size: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size))
    return {
        "predictions": rng.normal(size=(count, size)) @ mixing + 0.3,
        "targets": rng.normal(size=(other, size)) @ mixing * 1.2,
    }


def textbook_frechet(first: Array, second: Array) -> float:
    covariance, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(covariance @ other).real
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(covariance + other - 2 * root))


@pytest.mark.parametrize(("count", "other", "size"), [(60, 45, 8), (30, 200, 5), (7, 7, 3)])
def test_frechet_distance_is_that_of_the_textbook(count: int, other: int, size: int) -> None:
    sent = features(count, other, size)
    assert value_of("frechet_distance", sent) == pytest.approx(textbook_frechet(*sent.values()), rel=1e-9)


def test_frechet_distance_of_few_samples_keeps_its_digits() -> None:
    sent = features(6, 9, 64)
    # of covariances of low rank, the distance is that in the space that both sets span
    span = np.linalg.qr(np.concatenate([*sent.values()]).T)[0]
    expected = textbook_frechet(*(one @ span for one in sent.values()))
    assert value_of("frechet_distance", sent) == pytest.approx(expected, rel=1e-6)
    same = dict.fromkeys(sent, sent["targets"])
    assert value_of("frechet_distance", same) == pytest.approx(0, abs=1e-9)


def test_weights_of_frechet_distance_count_samples() -> None:
    sent = features(12, 12, 4)
    weights = np.arange(12) % 3
    repeated = {name: np.repeat(one, weights, 0) for name, one in sent.items()}
    weighed = value_of("frechet_distance", sent, weights=weights)
    assert weighed == pytest.approx(value_of("frechet_distance", repeated), rel=1e-12)
    one = features(1, 9, 4)
    assert isinstance(value_of("frechet_distance", one), Undefined)


@pytest.mark.parametrize(
    ("name", "shape", "params", "pointer"),
    [
        ("psnr", [1, 1, 2, 2], {}, "/params/data_range"),
        ("psnr", [1, 1, 2, 2], {"data_range": 0}, "/params/data_range"),
        ("ssim", [1, 1, 10, 12], {"data_range": 1}, "/inputs/predictions"),
        ("ssim", [1, 1, 12, 12], {"data_range": 1, "window_size": 4}, "/params/window_size"),
        ("ms_ssim", [1, 1, 100, 200], {"data_range": 1}, "/inputs/predictions"),
        ("ms_ssim", [1, 1, 20, 20], {"data_range": 1, "weights": []}, "/params/weights"),
        ("ms_ssim", [1, 1, 20, 20], {"data_range": 1, "weights": [-1]}, "/params/weights/0"),
        ("frechet_distance", [2, 0], {}, "/inputs/predictions"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    name: str, shape: list[int], params: Any, pointer: str, client: Client
) -> None:
    zeros = np.zeros(shape).tolist()
    body = {"inputs": {"predictions": zeros, "targets": zeros}, "params": params}
    answer = client.post(f"/v1/metrics/{name}", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]
