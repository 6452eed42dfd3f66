"""Float32 keeps the digits of small values: good fits, tails, large units."""

from collections.abc import Callable, Mapping
from math import exp, inf, isclose, log
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from service.engine.bind import bind
from service.engine.call import Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.losses.digits import bounded, excess, growth, sloped

RAMP = torch.arange(64.0, dtype=torch.float64).reshape(1, 1, 8, 8) / 64
WAVES = torch.sin(7 * RAMP)


def run(name: str, params: Mapping[str, Any] | None = None, **inputs: Any) -> Evaluation:
    """Evaluate the sum of a loss in float32, with all gradients."""
    loss = CATALOGUE[name]
    sent = {role: Sent(torch.as_tensor(values, dtype=torch.float64)) for role, values in inputs.items()}
    params = {**loss.defaults, **(params or {})}
    return evaluate(bind(Request(loss=loss, inputs=sent, params=params, reduction="sum")))


@pytest.mark.parametrize(
    ("name", "params", "inputs", "value"),
    [
        # correlations of sequences that vary little in their unit
        (
            "pearson_correlation",
            {},
            ([1e-5, 2e-5, 3e-5, 5e-5], [1e-5, 2e-5, 4e-5, 5e-5]),
            1 - 9 / 87.5**0.5,
        ),
        ("concordance_correlation", {}, ([1e-9, 2e-9, 3e-9, 5e-9], [1e-9, 2e-9, 4e-9, 5e-9]), 1 / 19),
        # 1 - exp(-d^2 / 2) for each of the distances, which are far below the bandwidth
        ("mmd", {"bandwidths": (1e4,)}, ([[0.0], [2.0]], [[1.0], [3.0]]), 1e-8),
        # half the variance of the difference of the logits, and a sixth of its third moment over the temperature
        ("distillation", {"temperature": 1e4}, ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]), 1 / 9 + 1 / 81e4),
        # the squared error over the product of powers
        ("tweedie_deviance", {"power": 3.0}, ([1e-18], [1e-20]), (1e-18 - 1e-20) ** 2 / 1e-36 / 1e-20),
        # half the squared distance, which overflows only before it is halved
        ("mixture_gaussian_nll", {}, ([[0.0]], [[[0.0]]], [[[1.0]]], [[2.2e19]]), 2.42e38),
        # no count: the dispersion times the logarithm of one plus the ratio
        ("negative_binomial_nll", {}, ([1e-8], [1e-8], [0.0]), 1e-8 * log(2)),
        ("negative_binomial_nll", {}, ([1.0], [1e-21], [0.0]), 1e-21 * log(1e21)),
        ("generalized_kl", {}, ([1e-5], [1.0]), 5.0000167e-11),
        ("entropy", {}, ([20.0, 0.0],), 21 * exp(-20)),
        ("entropy", {}, ([inf, 0.0],), 0.0),
        ("msle", {}, ([1.0 + 2**-23], [1.0]), 2.0**-48),
        ("psnr", {"eps": 1e-60}, ([[[[1.0]]]], [[[[1.0]]]]), -600.0),
        ("poisson_nll", {}, ([-inf], [0.0]), 0.0),
        ("smape", {}, ([inf], [1.0]), 200.0),
    ],
    ids=str,
)
def test_the_value_has_all_digits_of_float32(
    name: str, params: Mapping[str, Any], inputs: tuple[Any, ...], value: float
) -> None:
    found = run(name, params, **dict(zip(CATALOGUE[name].inputs, inputs, strict=True)))
    assert found.value.item() == pytest.approx(value, rel=2e-6, abs=0)
    assert not any(gradient.isnan().any() for gradient in found.gradients.values())


@pytest.mark.parametrize(
    ("name", "params", "inputs", "slope"),
    [
        ("welsch", {}, ([8.0], [0.0]), 8 * exp(-32)),
        ("welsch", {}, ([inf], [0.0]), 0.0),
        ("tukey_biweight", {}, ([inf], [0.0]), 0.0),
        ("general_robust", {"alpha": -1e6}, ([8.0], [0.0]), 8 * exp(-32 + 1.024e-3)),
        ("negative_binomial_nll", {}, ([1e4], [2.0], [1e4]), 0.0),
        # 2t / (p + t)^2, where the slopes of the difference and of the sum cancel
        ("smape", {}, ([1e5], [1e-2]), 400 * 1e-2 / (1e5 + 1e-2) ** 2),
        ("entropy", {}, ([20.0, 0.0],), -20 * exp(-20)),
    ],
    ids=str,
)
def test_the_slope_has_its_digits(
    name: str, params: Mapping[str, Any], inputs: tuple[Any, ...], slope: float
) -> None:
    found = run(name, params, **dict(zip(CATALOGUE[name].inputs, inputs, strict=True)))
    first = next(iter(found.gradients.values()))
    assert first.reshape(-1)[0].item() == pytest.approx(slope, rel=1e-4, abs=1e-12 if slope == 0 else 0)


def test_a_dispersion_near_0_has_the_slope_of_no_count() -> None:
    found = run("negative_binomial_nll", predictions=[1.0], dispersions=[1e-8], targets=[0.0])
    assert found.gradients["dispersions"].item() == pytest.approx(log(1e8) - 1, rel=1e-5)


def test_mass_that_moves_far_costs_though_every_gap_is_small() -> None:
    bins = torch.full((1000,), 1e-3, dtype=torch.float64)
    moved = bins.clone()
    moved[0] -= 1e-4
    moved[-1] += 1e-4
    assert run("cdf_wasserstein", probabilities=bins, targets=moved).value.item() == pytest.approx(
        0.0999, rel=1e-4
    )


def test_flat_windows_correlate_with_nothing_and_equal_ones_wholly() -> None:
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    flat = torch.full_like(RAMP, 0.7)
    loss = CATALOGUE["local_ncc"]
    far = (WAVES + 1000).float()
    assert (loss(flat.float(), WAVES.float())[inside] == 0).all()
    assert (loss(torch.full_like(flat, -1000.0).float(), far)[inside] == 0).all()
    torch.testing.assert_close(loss(far, far)[inside], torch.full_like(far[inside], -1.0))


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_similarity_far_above_the_data_range_is_that_of_its_variation(name: str) -> None:
    params = {"window_size": 3, **({"weights": (0.5, 0.5)} if name == "ms_ssim" else {})}
    found = run(name, params, predictions=RAMP + 1000, targets=RAMP + 0.1 * WAVES + 1000)
    rounded = {"predictions": (RAMP + 1000).float(), "targets": (RAMP + 0.1 * WAVES + 1000).float()}
    exact = CATALOGUE[name](**{role: image.double() for role, image in rounded.items()}, **params)
    assert found.value.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize(
    "name",
    ["ssim", "ms_ssim", "pearson_correlation", "concordance_correlation", "js_div", "squared_hellinger"],
)
def test_what_is_equal_costs_exactly_nothing(name: str) -> None:
    loss = CATALOGUE[name]
    values = RAMP if "image" in loss.tasks else RAMP.reshape(-1).softmax(-1)
    params = {"window_size": 3} if "window_size" in loss.params else {}
    params |= {"weights": (0.5, 0.5)} if "weights" in loss.params else {}
    found = run(name, params, **dict.fromkeys(loss.inputs, values))
    assert found.value == 0
    assert all((gradient == 0).all() for gradient in found.gradients.values())


@pytest.mark.parametrize("name", ["sobel_edge", "gradient_difference"])
def test_the_sign_of_a_small_error_of_edges_is_right(name: str) -> None:
    near = (RAMP * (1 + 1e-6 * WAVES)).float()
    images = near.clone().requires_grad_(), near.double().requires_grad_()
    for image in images:
        CATALOGUE[name](image, RAMP.float().to(image.dtype)).sum().backward()
    found, exact = (image.grad for image in images)
    assert found is not None and exact is not None
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "x", [-300.0, -1.0, -0.126, -0.124, -1e-6, 0.0, 1e-12, 1e-3, 0.124, 0.126, 2.0, 80.0]
)
def test_the_excess_of_the_exponential_is_exact(x: float) -> None:
    for dtype in (torch.float32, torch.float64):
        value = torch.tensor(x, dtype=dtype)
        with mpmath.workdps(60):
            exact = float(mpmath.expm1(value.item()) - mpmath.mpf(value.item()))
        assert isclose(excess(value).item(), exact, rel_tol=64 * torch.finfo(dtype).eps)


def test_a_small_factor_keeps_the_exponential_from_overflowing() -> None:
    exponent, factor = torch.tensor(100.0), torch.tensor(1e-30)
    assert growth(exponent, factor).item() == pytest.approx(exp(100) * 1e-30, rel=1e-5)
    assert excess(exponent, factor).item() == pytest.approx(exp(100) * 1e-30, rel=1e-5)


def test_bounds_take_rounding_out_of_a_value_and_nothing_out_of_its_slope() -> None:
    values = torch.tensor([-1e-9, 0.5, 1 + 1e-6, inf], requires_grad=True)
    found = bounded(values, 0, 1)
    assert found.tolist() == [0, 0.5, 1, inf]
    (slope,) = torch.autograd.grad(found[:3].sum(), values)
    assert slope.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (0, None)])
def test_given_slopes_are_those_of_each_call_in_a_batch(in_dims: tuple[int | None, int | None]) -> None:
    def products(a: Tensor, b: Tensor) -> Tensor:
        row = (a * b).sum(-1)
        return sloped(row, (a, b), (a, lambda a, b: b.expand_as(a)), (b, lambda a, b: a))

    def plain(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(-1)

    def slopes(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        first = torch.arange(9.0).reshape(3, 3).requires_grad_()
        second = torch.ones(3, 3).cumsum(-1)[:, :3].requires_grad_()
        other = second if in_dims[1] is not None else second[0]
        found = torch.func.vmap(function, in_dims)(first, other)
        return found, *torch.autograd.grad(found, (first, second), torch.arange(3.0))

    for found, expected in zip(slopes(products), slopes(plain), strict=True):
        torch.testing.assert_close(found, expected)
