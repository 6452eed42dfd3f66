"""Choosing a device, checking that it still works, and warming it up."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from service.engine import device
from service.engine.device import choose, is_alive, warm_up
from service.losses import CATALOGUE
from tests.engine.test_queue import asserting

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let torch count so many GPUs."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cpu:x"])
def test_devices_that_are_not_there_are_refused_with_words(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected .*; got"):
        choose(name)


@pytest.mark.parametrize(
    ("count", "name", "chosen"),
    [
        (0, "auto", ["cpu", "cpu", "cpu"]),
        (1, "auto", ["cuda:0", "cuda:0", "cuda:0"]),
        (2, "auto", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", ["cuda:1", "cuda:1", "cuda:1"]),
        (2, "cpu", ["cpu", "cpu", "cpu"]),
    ],
)
def test_workers_spread_over_the_gpus(
    gpus: Callable[[int], None], count: int, name: str, chosen: list[str]
) -> None:
    gpus(count)
    assert [str(choose(name, worker)) for worker in range(3)] == chosen


@pytest.mark.parametrize(("name", "count"), [("auto", 4), ("cuda", 4), ("cuda:1", 1), ("cpu", 1)])
def test_as_many_workers_as_gpus_make_use_of_them(gpus: Callable[[int], None], name: str, count: int) -> None:
    gpus(4)
    assert device.workers(name) == count
    gpus(0)
    assert device.workers(name) == 1


def test_a_driver_that_is_too_old_has_the_reason_of_torch(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(0)

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")

    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(
        ValueError, match=r"^Expected .*; got cuda, and torch says: .* too old .found version 11040.\.$"
    ):
        choose("cuda")


def test_auto_warns_of_a_gpu_that_torch_cannot_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def is_available() -> bool:
        warnings.warn("CUDA initialization: the driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(device.logger, "propagate", True)
    assert choose("auto") == CPU
    assert "no GPU is used: CUDA initialization: the driver is too old" in caplog.text


@pytest.mark.parametrize(
    ("error", "alive"),
    [
        (None, True),
        (RuntimeError("CUDA error: unspecified launch failure"), False),
        (RuntimeError("cuFFT error: CUFFT_EXEC_FAILED"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512 bytes"), True),
    ],
)
def test_a_device_lives_that_computes_or_has_no_memory_left(
    error: Exception | None, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ones(*args: Any, **kwargs: Any) -> torch.Tensor:
        if error is not None:
            raise error
        return torch.zeros(1)

    monkeypatch.setattr(torch, "ones", ones)
    assert is_alive(CPU) is alive


def test_a_warm_up_computes_every_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    evaluate = device.evaluate
    monkeypatch.setattr(
        device, "evaluate", lambda call, on: (seen.append(call.loss.name), evaluate(call, on))
    )
    losses = list(CATALOGUE.values())
    warm_up(CPU, losses)
    assert seen == [loss.name for loss in losses]


def test_a_warm_up_fails_with_the_loss_that_does() -> None:
    with pytest.raises(RuntimeError):
        warm_up(CPU, [CATALOGUE["mse"], asserting])
