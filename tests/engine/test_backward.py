"""Autograd's private engine gives the same as its public function."""

import pytest
import torch

from service.engine import backward


@pytest.mark.parametrize("private", [True, False])
def test_gradients_are_those_of_the_public_function(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backward._run_backward is not None, "torch has no such engine: drop the private path"  # pyright: ignore[reportPrivateUsage]
    if not private:
        monkeypatch.setattr(backward, "_run_backward", None)
    x, unused = torch.arange(4.0, requires_grad=True), torch.ones(2, requires_grad=True)
    slope = torch.tensor([1.0, -2.0, 0.0, 3.0])
    found, nothing = backward.differentiate(x**3, slope, (x, unused))
    expected, _ = torch.autograd.grad((x**3,), (x, unused), (slope,), allow_unused=True)
    assert found is not None
    assert torch.equal(found, expected)
    assert nothing is None
    assert x.grad is None
