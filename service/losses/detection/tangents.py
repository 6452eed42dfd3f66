"""Values that are computed in float64, with a derivative that float32 has all digits of."""

from torch import Tensor


def with_slope(value: Tensor, at: Tensor, slope: Tensor) -> Tensor:
    """Return a value in the dtype of ``at``, with ``slope`` as its derivative by it."""
    return value.detach().to(at.dtype) + slope.detach() * (at - at.detach())
