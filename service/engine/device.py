"""The device that computes: choose it, set it up, warm it up."""

from collections.abc import Iterable
from time import perf_counter

import torch

from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs, draw_params
from service.engine.bind import bind
from service.engine.call import Request, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_alike

WARM_UP_S = 0.5
"""Seconds that a warm-up runs through the catalogue: the first calls load kernels, later ones hardly any."""


def choose(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA if available, else the CPU.

    Raises:
        ValueError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"Expected auto, cpu, cuda, cuda:N or mps as the device; got {name!r}.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Expected an available CUDA device (there are {torch.cuda.device_count()}); got {name}."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("Expected an available device; got mps, which this machine does not have.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"Expected auto, cpu, cuda, cuda:N or mps as the device; got {name!r}.")
    return torch.device("cuda:0") if name == "cuda" else device


def warm_up(device: torch.device, losses: Iterable[AnyLoss]) -> None:
    """Evaluate random calls of the losses until `WARM_UP_S` is over."""
    start = perf_counter()
    for loss in losses:
        params = draw_params(loss)
        inputs = {name: Sent(tensor) for name, tensor in draw_inputs(loss, params).items()}
        call = bind(Request(loss=loss, inputs=inputs, params=params))
        # one call alone, and two that are computed together
        evaluate(call, device)
        evaluate_alike([call, call], device)
        if perf_counter() - start > WARM_UP_S:
            return
