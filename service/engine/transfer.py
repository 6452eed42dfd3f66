"""Move tensors to the device and back; on CUDA through pinned memory, without waiting for each."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def to_device(tensors: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """Return named tensors on a device."""
    if device.type == "cpu":
        return tensors
    return {name: _sent(tensor, device) for name, tensor in tensors.items()}


def to_host(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return tensors on the CPU, waiting for the device once."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return tensors
    if not all(tensor.is_cuda for tensor in tensors):
        return [tensor.cpu() for tensor in tensors]
    received = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
    for here, there in zip(received, tensors, strict=True):
        here.copy_(there, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return received


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device other than the CPU."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
