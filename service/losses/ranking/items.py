"""Which items of a list take part, and in which order."""

import torch
from torch import Tensor


def valid_items(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return where a list holds real items: everywhere if there is no mask."""
    return torch.ones_like(scores, dtype=torch.bool) if mask is None else mask


def descending(keys: Tensor, valid: Tensor) -> Tensor:
    """Return the indices that sort each list from the highest key, ties in index order.

    Items left out come last, behind a valid one of minus infinity too.
    """
    by_key = torch.where(valid, keys, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    left_out = (~valid).gather(-1, by_key).to(torch.uint8)
    return by_key.gather(-1, left_out.sort(dim=-1, stable=True).indices)
