"""Let a loss be differentiated twice, although its arithmetic is written to be differentiated once.

Losses detach what has no part in their gradient, hand over slopes in closed form, and reuse memory in place. While a
`Twice` is entered, all that happens to torch's functions instead of the losses: what is detached stays on the tape, but
gradients pass there only once ``through`` is true; functions in place make new tensors; sigmoids are computed so that
their derivatives keep the digits that torch's, s (1 - s), subtracts away where s is near 1.

So a gradient that was taken with ``through`` false is the one that the loss always gives, and its own derivative, taken
with ``through`` true, knows all that it depends on.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_entered: ContextVar["Twice | None"] = ContextVar("twice", default=None)


class Twice:
    """Says whether gradients pass ``through`` what is detached. It is entered in all that should be differentiated twice."""

    def __init__(self) -> None:
        self.through = False

    @contextmanager
    def entered(self) -> Generator[None]:
        """Let the body of a ``with`` be differentiated twice."""
        token = _entered.set(self)
        try:
            with _Recording(self):
                yield
        finally:
            _entered.reset(token)

    def detached(self, tensor: Tensor) -> Tensor:
        """Return a tensor through which gradients pass at the second time alone."""
        constant: Any = _Detached
        return constant.apply(tensor, self)


def differentiated_twice() -> Twice | None:
    """Return what is entered, None where one derivative is enough."""
    return _entered.get()


class _Recording(TorchFunctionMode):
    """Replaces functions of torch in a loss, but not in what autograd does by itself."""

    def __init__(self, twice: Twice) -> None:
        super().__init__()
        self.twice = twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.detach:
            return self.twice.detached(args[0])
        found = _out_of_place(func)
        return _EXACT.get(found, found)(*args, **(kwargs or {}))


def _sigmoid(x: Tensor) -> Tensor:
    """Return the sigmoid, whose derivative is accurate for large numbers too."""
    return torch.where(x > 0, 1 - torch.sigmoid(-x), torch.sigmoid(x))


def _logsigmoid(x: Tensor) -> Tensor:
    """Return the logarithm of the sigmoid, whose second derivative is accurate for large numbers too."""
    positive = x > 0
    return torch.where(positive, -torch.log1p(torch.exp(-torch.where(positive, x, 0.0))), F.logsigmoid(x))


_EXACT: dict[Any, Callable[..., Any]] = {
    torch.sigmoid: _sigmoid,
    Tensor.sigmoid: _sigmoid,
    F.logsigmoid: _logsigmoid,
}


def _out_of_place(func: Any) -> Callable[..., Any]:
    """Return the function that makes a new tensor, for one that works in place."""
    name: str = getattr(func, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return func
    found = getattr(Tensor, name[:-1], None) or getattr(torch, name[:-1], None)
    return found if callable(found) else func


class _Detached(torch.autograd.Function):
    """The identity, whose gradient is that of a constant as long as a `Twice` says so."""

    @staticmethod
    def forward(tensor: Tensor, twice: Twice) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Twice], output: Tensor) -> None:
        ctx.twice = inputs[1]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None]:
        return upstream[0] if ctx.twice.through else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int | None]:
        tensor, twice = args
        return twice.detached(tensor), in_dims[0]
