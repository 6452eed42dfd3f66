"""Which items of a list take part, in which order, and how many pairs of them one call may have."""

import torch
from torch import Tensor

from service.catalogue.domains import Facts
from service.catalogue.spec import Condition


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


def at_most_pairs(most: int, *, rounds: str | None = None) -> Condition:
    """Refuse calls of more than ``most`` pairs of items, which is what a pairwise loss's work grows with.

    ``rounds`` names a param that says how often the loss goes through them.
    """

    def pairs(facts: Facts) -> int:
        return facts.size("N") * facts.size("L") ** 2 * (facts.params[rounds] if rounds else 1)

    return Condition(
        "/inputs/scores",
        f"N L^2{f' {rounds}' if rounds else ''} to be at most {most:,} in [N, L]",
        got=lambda facts: f"{pairs(facts):,} (N = {facts.size('N')}, L = {facts.size('L')})",
        holds=lambda facts: pairs(facts) <= most,
    )
