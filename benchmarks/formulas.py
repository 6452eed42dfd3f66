"""The peers of `benchmarks.scale`: each formula as its paper has it, in the fewest lines of plain torch."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def supcon(embeddings: Tensor, targets: Tensor) -> Tensor:
    directions = F.normalize(embeddings)
    itself = torch.eye(len(targets), dtype=torch.bool)
    logits = (directions @ directions.T / 0.1).masked_fill(itself, -torch.inf)
    positives = (targets[:, None] == targets) & ~itself
    log_shares = logits - logits.logsumexp(1, keepdim=True)
    return -(log_shares.masked_fill(~positives, 0).sum(1) / positives.sum(1)).mean()


def ntxent(anchor: Tensor, positive: Tensor) -> Tensor:
    views = F.normalize(torch.cat([anchor, positive]))
    logits = (views @ views.T / 0.07).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(views)).roll(len(anchor)))


def clip(anchor: Tensor, positive: Tensor) -> Tensor:
    logits = F.normalize(anchor) @ F.normalize(positive).T / 0.07
    own = torch.arange(len(anchor))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def batch_hard_triplet(embeddings: Tensor, targets: Tensor) -> Tensor:
    # as exact as the service's: by default cdist expands the square, which is quicker and loses digits
    distance = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    same = targets[:, None] == targets
    farthest = distance.masked_fill(~same, -torch.inf).amax(1)
    nearest = distance.masked_fill(same, torch.inf).amin(1)
    return F.relu(farthest - nearest + 1).mean()


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    probabilities = logits.softmax(1)
    truths = F.one_hot(targets, logits.shape[1]).movedim(-1, 1).float()
    shared = (probabilities * truths).sum((2, 3))
    return (1 - (2 * shared + 1e-5) / (probabilities.sum((2, 3)) + truths.sum((2, 3)) + 1e-5)).mean()


def lovasz_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    probabilities = logits.softmax(1).movedim(1, -1).flatten(0, -2)
    losses: list[Tensor] = []
    for c in range(logits.shape[1]):
        truths = (targets.flatten() == c).to(logits)
        errors, order = (truths - probabilities[:, c]).abs().sort(descending=True)
        truths = truths[order]
        missed = truths.sum() - truths.cumsum(0)
        jaccard = 1 - missed / (truths.sum() + (1 - truths).cumsum(0))
        losses.append(errors @ torch.cat([jaccard[:1], jaccard.diff()]))
    return torch.stack(losses).mean()


def iou(boxes: Tensor, targets: Tensor) -> Tensor:
    return (1 - _overlap(boxes, targets)[0]).mean()


def giou(boxes: Tensor, targets: Tensor) -> Tensor:
    share, union = _overlap(boxes, targets)
    hull = _area(torch.minimum(boxes[:, :2], targets[:, :2]), torch.maximum(boxes[:, 2:], targets[:, 2:]))
    return (1 - share + (hull - union) / hull).mean()


def _overlap(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    near = torch.maximum(boxes[:, :2], targets[:, :2])
    shared = _area(near, torch.maximum(near, torch.minimum(boxes[:, 2:], targets[:, 2:])))
    union = _area(boxes[:, :2], boxes[:, 2:]) + _area(targets[:, :2], targets[:, 2:]) - shared
    return shared / union, union


def _area(near: Tensor, far: Tensor) -> Tensor:
    return (far - near).prod(-1)


def listnet(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores, targets.softmax(-1))


def ranknet(scores: Tensor, targets: Tensor) -> Tensor:
    better = targets[:, :, None] > targets[:, None]
    return -F.logsigmoid(scores[:, :, None] - scores[:, None])[better].mean()


def approx_ndcg(scores: Tensor, targets: Tensor) -> Tensor:
    ranks = 0.5 + (scores[:, None] - scores[:, :, None]).sigmoid().sum(-1)
    gains = 2**targets - 1
    ideal = (gains.sort(descending=True).values / torch.arange(2, scores.shape[1] + 2).log2()).sum(-1)
    return (1 - (gains / (1 + ranks).log2()).sum(-1) / ideal).mean()


PLAIN: Mapping[str, Callable[..., Tensor]] = {
    formula.__name__: formula
    for formula in (
        *(supcon, ntxent, clip, batch_hard_triplet),
        *(dice, lovasz_softmax),
        *(iou, giou),
        *(listnet, ranknet, approx_ndcg),
    )
}
"""By the name of the loss; each takes the loss's inputs in their order and returns its mean at the defaults."""
