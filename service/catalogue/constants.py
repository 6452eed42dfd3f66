"""Constant tensors of losses, copied to a device only once instead of with each call.

A copy from memory that is not pinned makes the host wait for the device.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

KEPT_BYTES = 1 << 13
"""Longest list to keep on a device, in bytes."""
KEPT = 256
"""Lists to keep: at most 2 MiB."""


def constant(values: float | Sequence[float] | Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return numbers as a tensor of the dtype and on the device of ``like``. It is shared: do not write to it.

    >>> constant((1, 2), torch.zeros(3))
    tensor([1., 2.])
    """
    here = torch.tensor(values, dtype=like.dtype)
    device = like.device
    if device.type == "cpu":
        return here
    if here.nbytes > KEPT_BYTES:
        return _sent(here, device)
    there = _kept(here.numpy().tobytes(), here.dtype, here.shape, device)
    if there.is_cuda:
        # its memory is not reused before this stream has finished with it
        there.record_stream(torch.cuda.current_stream(device))
    return there


@lru_cache(maxsize=KEPT)
def _kept(numbers: bytes, dtype: torch.dtype, shape: torch.Size, device: torch.device) -> Tensor:
    """Return a tensor on a device, readable by any stream."""
    there = _sent(torch.frombuffer(bytearray(numbers), dtype=dtype).reshape(shape), device)
    if there.is_cuda:
        torch.cuda.current_stream(device).synchronize()
    return there


def _sent(here: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting."""
    return (here.pin_memory() if device.type == "cuda" else here).to(device, non_blocking=True)
