"""The device that computes: choose it, warm it up, check that it still works."""

import logging
import statistics
import warnings
from collections.abc import Iterable, Sequence
from time import perf_counter

import torch

from service.catalogue.registry import AnyLoss
from service.catalogue.sample import draw_inputs, draw_params
from service.engine.bind import bind
from service.engine.call import CPU, Call, Request, Sent
from service.engine.cost import TYPICAL_UNIT_S
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_alike
from service.engine.memory import is_exhausted

logger = logging.getLogger("lossd")
FAILED = "The device has failed; the server is about to restart."
MEASURED = 15
"""Losses that are timed to compare the CPU with the device."""
EXPECTED = "auto, cpu, cuda, cuda:N or mps as the device"


def choose(name: str, worker: int = 0) -> torch.device:
    """Return the device of that name for a worker, counted from 0.

    ``auto`` is ``cuda`` if there is a usable GPU, else the CPU. ``cuda`` spreads the workers over all GPUs.

    Raises:
        ValueError: the device does not exist, or torch cannot use it; says why.
    """
    try:
        kind = torch.device("cpu" if name == "auto" else name).type
    except RuntimeError:
        kind = "unknown"
    if kind not in ("cpu", "cuda", "mps"):
        raise ValueError(f"Expected {EXPECTED}; got {name!r}.")
    if name == "auto":
        gpus = gpu_count()
        return torch.device("cuda", worker % gpus) if gpus else torch.device("cpu")
    if kind == "cuda":
        return _gpu(name, worker)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"Expected {EXPECTED}; mps is not available here.")
    return torch.device(name)


def _gpu(name: str, worker: int) -> torch.device:
    """Return the GPU of that name.

    Raises:
        ValueError: it does not exist, or torch cannot use it.
    """
    gpus = gpu_count()
    if not gpus:
        raise ValueError(f"Expected a device that torch can use; got {name}, and {_reason()}.")
    if name == "cuda":
        return torch.device("cuda", worker % gpus)
    device = torch.device(name)
    if device.index >= gpus:
        raise ValueError(f"Expected an available CUDA device (there are {gpus}); got {name}.")
    return device


def gpu_count() -> int:
    """Return the number of GPUs that torch can use; if it refuses an installed driver, log why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    for warning in caught:
        logger.warning("no GPU is used: %s", warning.message)
    return torch.cuda.device_count() if usable else 0


def workers(name: str) -> int:
    """Return the number of workers for a device: one for each GPU, or one."""
    return max(1, gpu_count()) if name in ("auto", "cuda") else 1


def _reason() -> str:
    """Return why torch cannot use a GPU."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"torch says: {str(error).rstrip('.')}"
    return "there is none"


def is_alive(device: torch.device) -> bool:
    """Run a small kernel and return whether the device still computes.

    After some errors a CUDA context only repeats them, and their messages do not say which: a failed allocation leaves
    the context usable, a failed launch does not.
    """
    try:
        torch.ones(1, device=device).add(1).item()
        if device.type == "cuda":
            # includes errors of other streams
            torch.cuda.synchronize(device)
    except RuntimeError as error:
        return is_exhausted(error)
    return True


def near_work(device: torch.device, losses: Sequence[AnyLoss]) -> int:
    """Measure the units of work below which the CPU is faster than a device: a power of two, or 0.

    Every call has a fixed cost, which is larger on a GPU; this is the work that a CPU does in the difference. Call it
    after the warm-up.
    """
    if device.type == "cpu":
        return 0
    calls = [_drawn(loss) for loss in losses[:: max(1, len(losses) // MEASURED)]]
    behind = statistics.median(_seconds(call, device) - _seconds(call, CPU) for call in calls)
    units = int(behind / TYPICAL_UNIT_S)
    return 0 if units < 1 else 1 << units.bit_length() - 1


def _seconds(call: Call, device: torch.device) -> float:
    """Return the shortest of a few evaluation times of a call."""
    times: list[float] = []
    for _ in range(5):
        start = perf_counter()
        evaluate(call, device)
        times.append(perf_counter() - start)
    return min(times)


def _drawn(loss: AnyLoss) -> Call:
    """Draw a call of a loss."""
    params = draw_params(loss)
    inputs = {name: Sent(tensor) for name, tensor in draw_inputs(loss, params).items()}
    return bind(Request(loss=loss, inputs=inputs, params=params))


def warm_up(device: torch.device, losses: Iterable[AnyLoss]) -> None:
    """Evaluate a call of each loss, alone and together with a like one: first calls load kernels."""
    for loss in losses:
        call = _drawn(loss)
        evaluate(call, device)
        for result in evaluate_alike([call, call], device):
            if isinstance(result, Exception):
                raise result
