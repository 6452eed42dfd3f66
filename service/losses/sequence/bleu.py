"""The BLEU score of single sentences, smoothed so that short ones do not vanish."""

import torch
from torch import Tensor


def bleu_plus_one(
    candidates: Tensor,
    candidate_lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    max_order: int,
    like: Tensor,
) -> Tensor:
    """Return BLEU+1 of each of the candidates ``[N, K, T]`` against its reference ``[N, S]``.

    One is added to matches and counts of the n-grams of two tokens and more. The dtype is that of ``like``.
    """
    positions = torch.arange(candidates.shape[-1], device=candidates.device)
    inside = positions < candidate_lengths[..., None]
    inside_target = torch.arange(targets.shape[-1], device=targets.device) < target_lengths[:, None]
    # repeats[p, q]: the tokens at p and at an earlier or the same q are one; found[p, q]: p of the candidate
    # and q of the reference are
    repeats = (candidates[..., :, None] == candidates[..., None, :]) & (positions <= positions[:, None])
    repeats = repeats & inside[..., :, None] & inside[..., None, :]
    found = (candidates[..., :, None] == targets[:, None, None, :]) & inside[..., :, None]
    found = found & inside_target[:, None, None, :]

    lengths = candidate_lengths.to(like)
    precisions: list[Tensor] = []
    same, hits = repeats, found
    for order in range(1, max_order + 1):
        if order > 1:
            # an n-gram is the one of its first n - 1 tokens and its last token
            same = same[..., :-1, :-1] & repeats[..., order - 1 :, order - 1 :]
            hits = hits[..., :-1, :-1] & found[..., order - 1 :, order - 1 :]
        # clipped: the k-th copy of an n-gram matches if the reference has at least k
        copy = same.sum(-1)
        matches = ((copy > 0) & (copy <= hits.sum(-1))).sum(-1)
        added = 0 if order == 1 else 1
        precisions.append((matches + added) / ((lengths - order + 1).clamp(min=0) + added).clamp(min=1))
    brevity = (1 - target_lengths[:, None] / lengths.clamp(min=1)).clamp(max=0).exp()
    return brevity * torch.stack(precisions).log().mean(0).exp()
