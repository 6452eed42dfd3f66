"""A device that pretends to be a GPU, to find errors and waits without one.

torch has a place for backends of others (PrivateUse1), which may be written in Python since 2.10. A tensor on this one
wraps a CPU tensor. Autograd, vmap and custom functions treat it as they treat CUDA, the backward pass on a thread of
the engine included. Each operation looks at the devices of its arguments as CUDA's do, is counted, and is computed on
the CPU, so that numbers can be compared, and code that depends on data takes its real way.

The hook is private and changes torch for the whole process: `install` it in a process that does nothing else.
"""

import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map_only

NAME = "pretended"
WAITS = {
    "_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "repeat_interleave",
}  # fmt: skip
"""Operations whose result has a size, or is a number, that only the device knows: the host waits for it."""
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
"""Operations that take indices on the CPU, for an upload; a mask among them makes the host wait, as `nonzero` does."""
FREE = {
    "view", "_unsafe_view", "reshape", "as_strided", "expand", "permute", "transpose", "t", "select", "slice",
    "unsqueeze", "squeeze", "detach", "alias", "_reshape_alias", "unbind", "split", "split_with_sizes", "diagonal",
    "unfold", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "view_as_real",
    "view_as_complex", "chunk", "_to_copy", "copy_", "_local_scalar_dense", "is_same_size",
}  # fmt: skip
"""Operations that launch no kernel, or are counted otherwise."""
ATOMIC = {
    "_ctc_loss_backward", "grid_sampler_2d_backward", "reflection_pad2d_backward", "replication_pad2d_backward",
    "scatter_add", "scatter_add_", "index_add", "index_add_", "max_pool2d_with_indices_backward", "scatter_reduce",
    "embedding_dense_backward", "histc", "kthvalue",
}  # fmt: skip
"""Operations that add by atomics on CUDA: two runs may differ in the last digits where numbers meet in one place."""
LENGTHS_ON_HOST = ("_ctc_loss", "_ctc_loss_backward")
"""Operations that take lengths from the CPU, and copy them there otherwise."""
NO_BROADCASTING = ("cat", "stack", "gather", "scatter", "scatter_add", "mm", "bmm")
"""Operations that refuse even a tensor of no dimension from the CPU, which elsewhere is an argument of the kernel."""
MAKERS = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace")
"""Operations that make an empty tensor and resize it, which a wrapper does not follow."""


@dataclass
class Log:
    """The log of the device; actions of the host are counted by their place in the service."""

    kernels: Counter[str] = field(default_factory=Counter[str])
    waits: Counter[str] = field(default_factory=Counter[str])
    uploads: Counter[str] = field(default_factory=Counter[str])
    threads: set[str] = field(default_factory=set[str])

    def clear(self) -> None:
        """Clear the log."""
        for counts in (self.kernels, self.waits, self.uploads):
            counts.clear()


LOG = Log()
"""The device of this process."""


class Pretended(torch.Tensor):
    """A tensor on the device, which wraps one on the CPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Pretended":
        made: Any = torch.Tensor._make_wrapper_subclass(  # pyright: ignore
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        # zeros that autograd makes without memory, for which kernels have no key below the hook
        made.held = torch.zeros(held.shape, dtype=held.dtype) if held._is_zerotensor() else held  # pyright: ignore
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def exists() -> bool:
    """Return whether this torch has the hook."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def install() -> tuple[torch.device, Log]:
    """Add the device to this process; return it and its log."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)  # pyright: ignore
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for maker in MAKERS:
        base, _, overload = maker.partition(".")
        aten.impl(maker, _maker(getattr(getattr(torch.ops.aten, base), overload or "default")), "PrivateUse1")
    _KEPT.extend((everything, aten))
    torch.Tensor.new_tensor = _new_tensor  # pyright: ignore
    return torch.device(NAME, 0), LOG


_KEPT: list[torch.library.Library] = []
"""References that end with their object."""


def _maker(op: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _run(op, args, kwargs)


def _new_tensor(like: torch.Tensor, data: Any, **options: Any) -> torch.Tensor:
    """Do what `new_tensor` does, whose own way to a device is closed to wrappers: an upload."""
    made = torch.tensor(data, dtype=options.get("dtype", like.dtype))
    return made.to(options.get("device", like.device))


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    """Compute an operation as CUDA would, or refuse it as CUDA would."""
    name = op._schema.name.removeprefix("aten::")
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    fakes = [t for t in tensors if isinstance(t, Pretended)]
    device = kwargs.get("device")
    to_host = device is not None and torch.device(device).type == "cpu"
    LOG.threads.add(threading.current_thread().name)
    _count(name, args, fakes, to_host)
    if name not in ("copy_", "_to_copy"):
        _refuse_mixed(name, args, tensors)
    held = tree_map_only(Pretended, lambda t: t.held, (args, kwargs))
    if device is not None:
        held[1]["device"] = torch.device("cpu")
    held[1].pop("pin_memory", None)
    found = op(*held[0], **held[1])
    if name == "copy_":
        return args[0]
    if to_host:
        return found
    # operations in place return the tensor they were given
    given = {id(t.held): t for t in fakes}
    return tree_map_only(torch.Tensor, lambda t: given[id(t)] if id(t) in given else Pretended(t), found)


def _count(name: str, args: Any, fakes: list[Any], to_host: bool) -> None:
    """Log the cost of an operation."""
    if name == "copy_":
        into, source = args[0], args[1]
        if isinstance(into, Pretended) and not isinstance(source, Pretended):
            LOG.uploads[_place()] += 1
        elif isinstance(source, Pretended) and not isinstance(into, Pretended):
            LOG.waits[f"copy to the host @ {_place()}"] += 1
    elif name == "_to_copy" and to_host and fakes:
        LOG.waits[f"copy to the host @ {_place()}"] += 1
    elif name == "_ctc_loss":
        # with lengths that are tensors on the device, it reads both on the host
        LOG.waits[f"copy to the host @ {_place()}"] += sum(isinstance(t, Pretended) for t in args[2:4])
    masks = name in INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    if name in WAITS or masks:
        LOG.waits[f"{name}{' by mask' if masks else ''} @ {_place()}"] += 1
    if name not in FREE:
        LOG.kernels[name] += 1


def _refuse_mixed(name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse tensors of different devices, except where CUDA accepts them."""
    others = [t for t in tensors if not isinstance(t, Pretended)]
    if len(others) == len(tensors):
        return
    if name in LENGTHS_ON_HOST:
        others = [tensor for tensor in others if tensor.dtype != torch.int64]
    for tensor in others:
        if name in INDEXING and tensor is not args[0] and tensor.dim():
            LOG.uploads[_place()] += 1
        elif tensor.dim() or name in NO_BROADCASTING:
            where = f"{name}, CPU {tuple(tensor.shape)} @ {_place()}"
            raise RuntimeError(f"Expected all tensors to be on the same device: {where}")


def _place() -> str:
    """Return where in the service the operation was asked for; the engine's thread has no such place."""
    for frame in reversed(traceback.extract_stack()):
        if "/service/" in frame.filename:
            return f"{frame.filename.split('/service/')[-1]}:{frame.lineno}"
    return "backward"
