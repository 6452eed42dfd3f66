"""Common parts of custom derivatives: under vmap, all calls run at once along a leading axis."""

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=type[torch.autograd.Function])


def signed_once(function: F) -> F:
    """Store the signature of a function, because torch reads it at each call, which takes as long as four small operations."""
    vars(function.forward)["__signature__"] = inspect.signature(function.forward)
    return function


def calls_in_front(size: int, in_dims: Sequence[int | None], inputs: Sequence[Tensor | None]) -> list[Any]:
    """Return the inputs of several calls with the axis that runs over the calls in front; None stays None."""
    return [_in_front(size, dim, tensor) for dim, tensor in zip(in_dims, inputs, strict=False)]


def _in_front(size: int, dim: int | None, tensor: Tensor | None) -> Tensor | None:
    """Move an input's axis over the calls to the front, or make one."""
    if tensor is None or dim is not None:
        return tensor if tensor is None or dim is None else tensor.movedim(dim, 0)
    return tensor.expand(size, *tensor.shape)
