"""What our own derivatives share: little overhead, and all calls at once under vmap, along an axis in front."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

_transforms: Callable[[], bool] | None = getattr(
    vars(torch).get("_C"), "_are_functorch_transforms_active", None
)


class Function(torch.autograd.Function):
    """A function with a derivative of our own, without torch's check of its arguments.

    Torch inspects the signature of `forward` at each call, to fill in defaults. That takes 38 of the 93 microseconds
    of a cross entropy of 80 logits. A torch without the private question whether vmap is at work gets the public way.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Apply it to all of its arguments."""
        checked: Any = super()
        if _transforms is None or _transforms():
            return checked.apply(*args)
        return cast(Any, super(torch.autograd.Function, cls)).apply(*args)


class Stackable(Function):
    """A function whose inputs may all have further axes in front, which run over calls."""

    def __init_subclass__(cls) -> None:
        cls.vmap = partial(_applied_together, cls)


def is_known(tensor: Tensor) -> bool:
    """Tell whether a look at a tensor's values waits for no device, and vmap does not hide them."""
    return tensor.is_cpu and _transforms is not None and not _transforms()


def _applied_together(
    function: type[Function], info: Any, in_dims: Sequence[int | None], *args: Any
) -> tuple[Any, Any]:
    """Apply a function once to all calls."""
    found: Tensor | tuple[Tensor, ...] = function.apply(
        *[_in_front(info.batch_size, dim, arg) for dim, arg in zip(in_dims, args, strict=True)]
    )
    return found, (0,) * len(found) if isinstance(found, tuple) else 0


def _in_front(size: int, dim: int | None, arg: Any) -> Any:
    """Move an input's axis over the calls to the front, or make one; what is no tensor stays as it is."""
    if not isinstance(arg, Tensor):
        return arg
    return arg.expand(size, *arg.shape) if dim is None else arg.movedim(dim, 0)
