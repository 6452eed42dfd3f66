"""Volumes: losses of images take a third axis of space, along which nothing is special."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.problems import Invalid

PARAMS: dict[str, dict[str, Any]] = {
    "ssim": {"window_size": 3},
    "local_ncc": {"kernel_size": 3},
    "soft_cldice": {"mode": "multilabel", "iterations": 1},
}
every = pytest.mark.parametrize("name", PARAMS)


def run(name: str, first: Tensor, second: Tensor, **params: Any) -> Evaluation:
    """Evaluate a loss in float64, its params those of `PARAMS` unless others are given."""
    loss = CATALOGUE[name]
    inputs = {role: Sent(tensor) for role, tensor in zip(loss.inputs, (first, second), strict=True)}
    params = {**loss.defaults, **PARAMS[name], **params}
    return evaluate(
        bind(Request(loss=loss, inputs=inputs, params=params, reduction="none", dtype=torch.float64))
    )


def volumes(*shape: int) -> tuple[Tensor, Tensor]:
    """Return two volumes that are alike, with numbers from 0 to 1."""
    rng = torch.Generator().manual_seed(5)
    first, noise = (torch.rand(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    return first, 0.7 * first + 0.3 * noise


def gradient(found: Evaluation) -> Tensor:
    """Return the only gradient of an evaluation."""
    [only] = found.gradients.values()
    return only


@every
def test_axes_of_space_are_alike(name: str) -> None:
    first, second = volumes(2, 2, 4, 5, 6)
    found = run(name, first, second)
    for order in permutations((2, 3, 4)):
        turned = run(name, first.permute(0, 1, *order), second.permute(0, 1, *order))
        value = found.value.permute(0, 1, *order) if found.value.dim() == 5 else found.value
        torch.testing.assert_close(turned.value, value, rtol=1e-12, atol=1e-12)
        expected = gradient(found).permute(0, 1, *order)
        torch.testing.assert_close(gradient(turned), expected, rtol=1e-10, atol=1e-12)


def test_lines_in_a_single_slice_are_those_of_the_image() -> None:
    logits, targets = volumes(2, 3, 9, 8)
    image, slice_ = (
        run("soft_cldice", *pair) for pair in ((logits, targets), (logits[:, :, None], targets[:, :, None]))
    )
    torch.testing.assert_close(slice_.value, image.value, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient(slice_).squeeze(2), gradient(image), rtol=1e-12, atol=1e-15)


def test_a_volume_of_equal_slices_is_as_similar_as_its_slices() -> None:
    first, second = volumes(2, 2, 7, 8)
    tall = [image[:, :, None].expand(-1, -1, 5, -1, -1) for image in (first, second)]
    torch.testing.assert_close(
        run("ssim", *tall).value, run("ssim", first, second).value, rtol=1e-12, atol=1e-12
    )
    inside = run("local_ncc", *tall).value[:, :, 1:-1]
    flat = run("local_ncc", first, second).value[:, :, None].expand_as(inside)
    torch.testing.assert_close(inside, flat, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma", [1.5, 0.6])
def test_similarity_of_volumes_is_that_of_gaussian_filters(sigma: float) -> None:
    first, second = volumes(1, 1, 9, 8, 10)
    radius, k1, k2 = 3, 0.01, 0.03

    def smooth(volume: Tensor) -> Any:
        inside = (slice(radius, -radius),) * 3
        return gaussian_filter(volume[0, 0].numpy(), sigma, radius=radius)[inside]

    mean_p, mean_t = smooth(first), smooth(second)
    variance_p, variance_t = smooth(first**2) - mean_p**2, smooth(second**2) - mean_t**2
    covariance = smooth(first * second) - mean_p * mean_t
    above = (2 * mean_p * mean_t + k1**2) * (2 * covariance + k2**2)
    below = (mean_p**2 + mean_t**2 + k1**2) * (variance_p + variance_t + k2**2)
    found = run("ssim", first, second, window_size=2 * radius + 1, sigma=sigma).value.item()
    assert found == pytest.approx(1 - np.mean(above / below), rel=1e-12)


def test_correlation_of_volumes_is_that_of_uniform_filters() -> None:
    first, second = volumes(1, 1, 6, 7, 5)
    size = 5

    def total(volume: Tensor) -> Any:
        return size**3 * uniform_filter(volume[0, 0].numpy(), size, mode="constant")

    count = size**3
    sum_p, sum_t = total(first), total(second)
    cross = total(first * second) - sum_p * sum_t / count
    variance_p, variance_t = total(first**2) - sum_p**2 / count, total(second**2) - sum_t**2 / count
    found = run("local_ncc", first, second, kernel_size=size).value[0, 0].numpy()
    np.testing.assert_allclose(found, -(cross**2) / variance_p / variance_t, rtol=1e-12)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return SSIM of volumes by a convolution with one window of three axes."""
    offsets = torch.arange(-1.0, 2.0, dtype=first.dtype)
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.einsum("i,j,k->ijk", line, line, line)
    window = (window / window.sum())[None, None]

    def smooth(volume: Tensor) -> Tensor:
        return F.conv3d(volume.flatten(0, 1).unsqueeze(1), window)

    mean_p, mean_t = smooth(first), smooth(second)
    variance_p, variance_t = smooth(first**2) - mean_p**2, smooth(second**2) - mean_t**2
    covariance = smooth(first * second) - mean_p * mean_t
    above = (2 * mean_p * mean_t + 1e-4) * (2 * covariance + 9e-4)
    below = (mean_p**2 + mean_t**2 + 1e-4) * (variance_p + variance_t + 9e-4)
    return 1 - (above / below).reshape(len(first), -1).mean(1)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared correlation of each window of three axes, cut out and centred."""
    cuts = [
        F.pad(x, (1,) * 6).unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1).flatten(-3)
        for x in (first, second)
    ]
    off_p, off_t = (cut - cut.mean(-1, keepdim=True) for cut in cuts)
    return -((off_p * off_t).sum(-1) ** 2) / off_p.square().sum(-1) / off_t.square().sum(-1)


def lines(masks: Tensor) -> Tensor:
    """Return soft skeletons after one erosion, from shifted copies of the volumes."""

    def shifted(x: Tensor, beyond: float, reach: int) -> Tensor:
        d, h, w = x.shape[2:]
        padded = F.pad(x, (1,) * 6, value=beyond)
        steps = [(i, j, k) for i in (0, 1, 2) for j in (0, 1, 2) for k in (0, 1, 2)]
        near = [s for s in steps if sum(abs(step - 1) for step in s) <= reach]
        return torch.stack([padded[:, :, i : i + d, j : j + h, k : k + w] for i, j, k in near])

    found = torch.zeros_like(masks)
    for _ in range(2):
        eroded = shifted(masks, 9, 1).amin(0)
        ridges = F.relu(masks - shifted(eroded, -9, 3).amax(0))
        found = found + F.relu(ridges - found * ridges)
        masks = eroded
    return found


def overlap(logits: Tensor, targets: Tensor) -> Tensor:
    """Return one minus the harmonic mean of what skeletons and masks share."""
    p, space = logits.sigmoid(), (2, 3, 4)
    of_p, of_t = lines(p), lines(targets)
    a = ((of_p * targets).sum(space) + 1) / (of_p.sum(space) + 1)
    b = ((of_t * p).sum(space) + 1) / (of_t.sum(space) + 1)
    return 1 - 2 * a * b / (a + b)


@pytest.mark.parametrize(
    ("name", "reference"), [("ssim", similarity), ("local_ncc", correlation), ("soft_cldice", overlap)]
)
def test_values_and_gradients_are_those_of_the_definition(name: str, reference: Any) -> None:
    first, second = volumes(2, 2, 6, 5, 7)
    first = (4 * first - 2 if name == "soft_cldice" else first).requires_grad_()
    expected = reference(first, second)
    [slope] = torch.autograd.grad(expected.sum(), first)
    found = run(name, first.detach(), second)
    torch.testing.assert_close(
        found.value, expected.detach().reshape(found.value.shape), rtol=1e-12, atol=1e-14
    )
    torch.testing.assert_close(gradient(found), slope, rtol=1e-12, atol=1e-12 * slope.abs().max().item())


@pytest.mark.parametrize(
    ("shape", "found"),
    [((1, 1, 2, 9, 9), "2 x 9 x 9"), ((1, 1, 9, 2, 9), "9 x 2 x 9"), ((1, 1, 9, 2), "9 x 2")],
)
def test_a_window_larger_than_a_side_is_refused(shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(Invalid) as refused:
        run("ssim", *volumes(*shape))
    [fault] = refused.value.faults
    assert (fault.pointer, f"got {found}, where at least 3 are needed" in fault.detail) == (
        "/inputs/predictions",
        True,
    )


@every
def test_other_ranks_are_refused_with_both_forms(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        run(name, *volumes(3, 4))
    assert "[N, C, H, W] or [N, C, D, H, W]" in refused.value.faults[0].detail
