"""The values that pass through the engine: a tensor as sent, a request, a valid call, its evaluation.

Each small call makes some of them. So they are named tuples, which take a quarter of the time of frozen dataclasses.
"""

from collections.abc import Hashable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from service.catalogue.registry import AnyLoss

Reduction = Literal["mean", "sum", "none"]
Dtype = Literal["float32", "float64", "float16", "bfloat16"]
Hessian = Literal["diagonal"]

DTYPES: Mapping[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)


class Sent(NamedTuple):
    """A tensor as a client sent it, on the CPU.

    ``addressable``: its elements have JSON Pointers. ``any_rank``: it is a JSON ``[]``, the empty tensor of any
    rank.
    """

    tensor: Tensor
    addressable: bool = False
    any_rank: bool = False


NO_TANGENTS: Mapping[str, Sent] = {}
NO_TENSORS: Mapping[str, Tensor] = {}


class Request(NamedTuple):
    """A call whose envelope and params are valid, and whose tensors are decoded but not yet checked."""

    loss: AnyLoss
    inputs: Mapping[str, Sent]
    params: Mapping[str, Any]
    gradients: bool | tuple[str, ...] = True
    reduction: Reduction = "mean"
    sample_weight: Sent | None = None
    grad_output: Sent | None = None
    dtype: torch.dtype = torch.float32
    divide_by: float | None = None
    tangents: Mapping[str, Sent] = NO_TANGENTS
    hessian: Hessian | None = None


class Call(NamedTuple):
    """A valid request. Its floating tensors are in the dtype of the arithmetic.

    ``dtype`` is the requested dtype: results are rounded to it, and half types are computed in float32.
    ``divide_by`` takes the place of the divisor of the ``mean``.
    ``work`` is the estimated cost, see `Loss.elements`; ``overhead`` is the part of it that like calls share if they are
    evaluated as one. ``key`` is equal for calls that can be evaluated together; None if only their fields say so.
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
    divide_by: float | None = None
    key: Hashable = None
    tangents: Mapping[str, Tensor] = NO_TENSORS
    hessian: Hessian | None = None

    @property
    def like(self) -> "Call":
        """The call itself, as of a `Stack` one of its calls."""
        return self


class Evaluation(NamedTuple):
    """The results of a `Call`: detached tensors on the CPU, the floating ones in the call's dtype.

    ``divisor`` is the sum of weighted divisors, None under ``none``; always in float64, so that counts stay exact.
    ``device`` is the one that computed them. ``tangent`` is the change of the value, ``hessian_product`` that of the gradients
    along the tangents of the call; ``hessian`` is that of each element of a gradient with its own input.
    """

    value: Tensor
    gradients: Mapping[str, Tensor]
    aux: Mapping[str, Tensor]
    divisor: Tensor | None = None
    device: torch.device = CPU
    tangent: Tensor | None = None
    hessian_product: Mapping[str, Tensor] = NO_TENSORS
    hessian: Mapping[str, Tensor] = NO_TENSORS
