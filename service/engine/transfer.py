"""Move tensors to the device and back without waiting longer than necessary.

CUDA copies pinned memory three times as fast as other memory, and asynchronously: `pinned` fills it before a call is
handed to a thread of the device. Small tensors travel together, and so do small results. Each thread has its own stream,
so the copies of one overlap the kernels of another.
"""

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from service.engine.stack import Part, with_tensors

P = TypeVar("P", bound=Part)
SMALL = 1 << 16
"""Tensors of at most this many bytes take as long to copy as an empty one."""
NOWHERE: AbstractContextManager[None] = nullcontext()
_own = threading.local()


def working_on(device: torch.device) -> AbstractContextManager[None]:
    """Run this thread's kernels on its own stream, and its backward passes in this thread."""
    return _streaming(device) if device.type == "cuda" else NOWHERE


@contextmanager
def _streaming(device: torch.device) -> Generator[None]:
    """Use the stream of this thread."""
    if getattr(_own, "device", None) != device:
        _own.device, _own.stream = device, torch.cuda.Stream(device)
    # a hand-over to autograd's threads takes a tenth of the time of a small call
    with torch.cuda.stream(_own.stream), torch.autograd.set_multithreading_enabled(False):
        yield


def pinned(part: P, device: torch.device, count: Callable[[int], object] = lambda size: None) -> P:
    """Copy the large inputs of calls into pinned memory, in any thread, and ``count`` its bytes."""
    if device.type != "cuda":
        return part
    large = {name: tensor for name, tensor in part.inputs.items() if tensor.nbytes > SMALL}
    count(sum(tensor.nbytes for tensor in large.values()))
    return with_tensors(part, {**part.inputs, **{name: t.pin_memory() for name, t in large.items()}})


def is_large(part: Part) -> bool:
    """Return whether an input is so large that calls are joined on the device instead of the host."""
    return any(tensor.nbytes > SMALL for tensor in part.inputs.values())


def moved(part: P, device: torch.device) -> P:
    """Return calls with their tensors on a device."""
    beside = {"sample_weight": part.sample_weight, "grad_output": part.grad_output}
    there = to_device({name: tensor for name, tensor in beside.items() if tensor is not None}, device)
    tangents = to_device(part.tangents, device)
    return with_tensors(part, to_device(part.inputs, device), tangents=tangents, **there)


def to_device(tensors: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """Return named tensors on a device."""
    if device.type == "cpu" or all(tensor.device == device for tensor in tensors.values()):
        return tensors
    small = {name: tensor for name, tensor in tensors.items() if tensor.nbytes <= SMALL}
    if len(small) > 1:
        joined = _sent(_joined(list(small.values()), pin=device.type == "cuda"), device)
        there = dict(zip(small, _parted(joined, list(small.values())), strict=True))
    else:
        there = dict[str, Tensor]()
    return {name: there[name] if name in there else _sent(tensor, device) for name, tensor in tensors.items()}


def to_host(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return tensors on the CPU, waiting for the device once."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return tensors
    small = [tensor for tensor in tensors if tensor.nbytes <= SMALL]
    large = [tensor for tensor in tensors if tensor.nbytes > SMALL]
    sent = [_joined(small), *large] if small else large
    received = [_received(tensor) for tensor in sent]
    if sent[0].is_cuda:
        torch.cuda.current_stream(sent[0].device).synchronize()
    parts = iter(_parted(received.pop(0), small) if small else [])
    whole = iter(received)
    return [next(parts) if tensor.nbytes <= SMALL else next(whole) for tensor in tensors]


def _joined(tensors: Sequence[Tensor], *, pin: bool = False) -> Tensor:
    """Concatenate the bytes of tensors, largest elements first, so that all are aligned."""
    parts = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in _by_element(tensors)]
    if not pin:
        return torch.cat(parts)
    size = sum(part.numel() for part in parts)
    return torch.cat(parts, out=torch.empty(size, dtype=torch.uint8, pin_memory=True))


def _parted(joined: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    """Split joined tensors again; they are returned in the order of ``like``."""
    ordered = _by_element(like)
    parts = torch.split_with_sizes(joined, [tensor.nbytes for tensor in ordered])
    found = {
        id(tensor): part.view(tensor.dtype).reshape(tensor.shape)
        for tensor, part in zip(ordered, parts, strict=True)
    }
    return [found[id(tensor)] for tensor in like]


def _by_element(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Sort tensors by the size of their elements, largest first."""
    return sorted(tensors, key=lambda tensor: -tensor.itemsize)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device other than the CPU."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def _received(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor on the CPU; on CUDA it is complete when the stream is."""
    if not tensor.is_cuda:
        return tensor.cpu()
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
