"""Logarithms of probabilities that may be 0, where 0 log 0 counts as 0 and so does its gradient."""

import torch
from torch import Tensor


def log(probabilities: Tensor) -> Tensor:
    """Return the logarithms; 0 with a zero gradient where a probability is 0, for `weighted` to leave out."""
    return torch.where(probabilities == 0, 1.0, probabilities).log()


def weighted(weights: Tensor, logarithms: Tensor) -> Tensor:
    """Return the products; 0 with zero gradients where a weight is 0, however infinite the logarithm."""
    return weights * torch.where(weights == 0, 0.0, logarithms)
