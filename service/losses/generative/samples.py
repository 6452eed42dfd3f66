"""Samples of any shape as rows, for losses that sum within each sample."""

from torch import Tensor


def flattened(values: Tensor) -> Tensor:
    """Return one row for each sample of the first dimension, also where a sample is a single number."""
    return values.unsqueeze(-1).flatten(1)
