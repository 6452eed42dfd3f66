"""Log-scores of minus infinity, for impossible events, in differentiable arithmetic."""

from math import inf

from torch import Tensor


def detach_impossible(log_scores: Tensor) -> Tensor:
    """Return the same numbers, without a gradient where they are minus infinity.

    It is 0 there, but a sum of exponentials subtracts minus infinity from itself to find it, which is NaN.
    """
    return log_scores.masked_fill(log_scores == -inf, -inf)
