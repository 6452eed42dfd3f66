"""Our own derivatives: applied without torch's check of arguments they are what they are with it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from service.losses import stacking


class _Cubed(stacking.Stackable):
    """The cube, with its derivative."""

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return factor * x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.factor = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return 3 * ctx.factor * x**2 * upstream[0], None


@pytest.mark.parametrize("private", [True, False])
def test_a_function_is_applied_alone_and_under_vmap(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stacking._transforms is not None, "torch has no such question: drop the private path"  # pyright: ignore[reportPrivateUsage]
    if not private:
        monkeypatch.setattr(stacking, "_transforms", None)
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()

    def cube(row: Tensor) -> Tensor:
        return _Cubed.apply(row, 2.0)

    for found in (cube(x), torch.func.vmap(cube)(x), torch.func.vmap(cube, in_dims=1, out_dims=1)(x)):
        assert torch.equal(found, 2 * x**3)
        (slope,) = torch.autograd.grad(found.sum(), x)
        assert torch.equal(slope, 6 * x**2)


def test_values_are_known_on_the_host_outside_of_vmap() -> None:
    x, seen = torch.ones(2), list[bool]()

    def look(element: Tensor) -> Tensor:
        seen.append(stacking.is_known(element))
        return element

    torch.func.vmap(look)(x)
    assert seen == [False]
    assert stacking.is_known(x)
    assert not stacking.is_known(torch.ones(2, device="meta"))
