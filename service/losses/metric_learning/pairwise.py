"""Shared parts of losses on embeddings: directions, distances, positives and negatives, sums of exponentials."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.catalogue.twice import differentiated_twice
from service.losses.stacking import Function
from service.losses.vectors import unit


class Relations(NamedTuple):
    """For each row of a labelled batch, which other rows have its label, and which rows another."""

    positives: Tensor
    negatives: Tensor


def relations(targets: Tensor) -> Relations:
    """Compare the labels of all rows; a row is neither its own positive nor its own negative."""
    same = targets[:, None] == targets
    return Relations(same & others(targets), ~same)


def others(rows: Tensor) -> Tensor:
    """Return a square mask, one row and column for each row of a tensor, false on the diagonal."""
    return ~torch.eye(rows.shape[0], dtype=torch.bool, device=rows.device)


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosine of the angle between every row and every column."""
    return unit(rows) @ unit(columns).mT


def distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the Euclidean distance between every row and every column, with slope 0 where they coincide.

    By differences: the expanded square ``x.x - 2 x.y + y.y`` has no digits left for near points.
    """
    if rows.dtype == torch.float64 and differentiated_twice() is None:
        if rows.device.type != "cpu":
            return _SlopesInPieces.apply(rows, columns)
        return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
    return _FastSlopes.apply(rows, columns)


PIECE = 1 << 18
"""Most differences between coordinates to compute at once on CUDA: 2 MiB."""


class _SlopesInPieces(Function):
    """Distances with torch's slopes for some rows at a time: on CUDA torch computes all differences at once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, columns: Tensor) -> Tensor:
        return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns, distance = ctx.saved_tensors
        of_rows = _slopes(upstream[0], rows, columns, distance)
        return of_rows, _slopes(upstream[0].mT, columns, rows, distance.mT)


def _slopes(upstream: Tensor, rows: Tensor, columns: Tensor, distance: Tensor) -> Tensor:
    """Return the slopes of distances by the rows, a few rows at a time."""
    some = max(1, PIECE // max(1, columns.numel()))
    starts = range(0, rows.shape[-2], some)
    pieces = [
        torch.ops.aten._cdist_backward(
            upstream[..., start : start + some, :].contiguous(),
            rows[..., start : start + some, :].contiguous(),
            columns.contiguous(),
            2.0,
            distance[..., start : start + some, :].contiguous(),
        )
        for start in starts
    ]
    return torch.cat(pieces, -2) if pieces else torch.zeros_like(rows)


class _FastSlopes(Function):
    """Distances of float32 vectors whose slopes are matrix products, ten times as fast as torch's own.

    The slope ``sum_j w_j (x - y_j)`` becomes ``x sum_j w_j - sum_j w_j y_j``, which cancels where x is near
    y_j. In float64 that costs 1e-16 |x| / d: less than float32 rounds to, unless d is below 1e-9 |x|.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, columns: Tensor) -> Tensor:
        scale = _scale(rows, columns)
        scaled = torch.cdist(rows / scale, columns / scale, compute_mode="donot_use_mm_for_euclid_dist")
        return scaled.mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns, distance = ctx.saved_tensors
        pull = (upstream[0] / torch.where(distance > 0, distance, torch.inf)).double()
        wide_rows, wide_columns = rows.double(), columns.double()
        of_rows = pull.sum(-1)[..., None] * wide_rows - pull @ wide_columns
        of_columns = pull.sum(-2)[..., None] * wide_columns - pull.mT @ wide_rows
        return of_rows.to(rows), of_columns.to(columns)


def _scale(rows: Tensor, columns: Tensor) -> Tensor:
    """Return what to divide vectors by whose squares would overflow or vanish in float32; 1 for all others."""
    largest = torch.maximum(rows.abs().amax(), columns.abs().amax())
    power = largest.log2().floor().exp2()
    return torch.where(((largest > 1e18) | (largest < 1e-15)) & (power > 0) & power.isfinite(), power, 1.0)


def masked_logsumexp(values: Tensor, mask: Tensor, *, empty: float = -torch.inf) -> Tensor:
    """Return log sum exp over the last axis where ``mask`` is true, and ``empty`` where it nowhere is."""
    nothing = ~mask.any(-1)
    # a row of nothing sums ones that are dropped in the end: -inf alone would make its slopes NaN
    left_out = torch.where(nothing, 0.0, -torch.inf)[..., None]
    return torch.where(nothing, empty, torch.where(mask, values, left_out).logsumexp(-1))
