"""The values that pass through the engine: a tensor as sent, a request, a valid call, its evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss

Reduction = Literal["mean", "sum", "none"]
Dtype = Literal["float32", "float64", "float16", "bfloat16"]

DTYPES: Mapping[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Sent:
    """A tensor as a client sent it, on the CPU.

    ``addressable``: its elements have JSON Pointers. ``any_rank``: it is a JSON ``[]``, the empty tensor of any
    rank.
    """

    tensor: Tensor
    addressable: bool = False
    any_rank: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call whose envelope and params are valid, and whose tensors are decoded but not yet checked."""

    loss: AnyLoss
    inputs: Mapping[str, Sent]
    params: Mapping[str, Any]
    gradients: bool | tuple[str, ...] = True
    reduction: Reduction = "mean"
    sample_weight: Sent | None = None
    grad_output: Sent | None = None
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A valid request. Its floating tensors are in the dtype of the arithmetic.

    ``dtype`` is the requested dtype: results are rounded to it, and half types are computed in float32.
    ``work`` is the estimated cost, see `Loss.elements`; ``overhead`` is the part of it that like calls share if they are
    evaluated as one.
    """

    loss: AnyLoss
    inputs: Mapping[str, Tensor]
    params: Mapping[str, Any]
    work: int
    overhead: int = 0
    gradients_of: tuple[str, ...] = ()
    reduction: Reduction = "mean"
    sample_weight: Tensor | None = None
    grad_output: Tensor | None = None
    dtype: torch.dtype = torch.float32

    @property
    def like(self) -> "Call":
        """The call itself, as of a `Stack` one of its calls."""
        return self

    @property
    def count(self) -> int:
        """One, as of a `Stack` the number of its calls."""
        return 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of a `Call`: detached tensors on the CPU, the floating ones in the call's dtype.

    ``device`` is the one that computed them.
    """

    value: Tensor
    gradients: Mapping[str, Tensor]
    aux: Mapping[str, Tensor]
    device: torch.device = CPU
