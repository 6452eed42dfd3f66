"""Linear-chain conditional random fields: the likelihood of a whole sequence of labels."""

from typing import Annotated

import torch
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import ClassIndex, Facts, Mask
from service.catalogue.rounds import lasting, rounds
from service.catalogue.spec import Condition, Prediction, Target, Unreduced
from service.losses.sequence.impossible import detach_impossible


@loss(
    title="Conditional random field",
    tasks=("nlp", "sequence"),
    aliases=("crf", "linear_chain_crf", "conditional_random_field"),
    requires=(
        Condition(
            "/inputs/mask",
            "rows that are true from their first step to their last valid one, and false after it",
            lambda facts: f"something else in row {int(_runs(facts).byte().argmin())}",
            lambda facts: _runs(facts).all(),
        ),
    ),
    work="N T K K",
    overhead="3072 T",
    range=(0, None),
)
def crf_nll(
    emissions: Annotated[Tensor, Prediction("N T K")],
    transitions: Annotated[Tensor, Prediction("K K")],
    start_transitions: Annotated[Tensor, Prediction("K")],
    end_transitions: Annotated[Tensor, Prediction("K")],
    targets: Annotated[Tensor, Target("N T", ClassIndex("K"), where="mask")],
    mask: Annotated[Tensor, Target("N T", Mask())] | None = None,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Negative log-likelihood of a label sequence under a linear-chain CRF: tagging, segmentation of text.

    Formula:
        \log \sum_{y'} e^{s(y')} - s(y), \quad
        s(y) = b_{y_1} + \sum_t z_{t, y_t} + \sum_{t > 1} A_{y_{t-1}, y_t} + e_{y_T}

    Args:
        emissions: Score of each label at each step.
        transitions: Score of going from the label of the row to the label of the column.
        start_transitions: Score of beginning with each label.
        end_transitions: Score of ending with each label.
        targets: The right label at each step.
        mask: True at the valid steps of each sequence, which come first; all if absent.

    Use when:
        Neighbouring labels depend on each other, as in named-entity tagging.

    Pitfalls:
        This is the negative log-likelihood: some libraries return the likelihood to be maximised.
        `transitions[i, j]` goes from i to j, which some codes transpose. The mean runs over sequences; for a
        mean over tokens divide the sum by their number.

    Sources:
        - Lafferty et al. (2001), Conditional Random Fields: Probabilistic Models for Segmenting and Labeling
          Sequence Data, https://repository.upenn.edu/cis_papers/159/
    """
    steps = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    scores = torch.where(steps[..., None], emissions, 0.0)
    labels = torch.where(steps, targets, 0)

    # in float64 and relative to the right labels, as their sums over thousands of steps are nearly the same
    scores, moves = scores.double(), transitions.double()
    start, end = start_transitions.double(), end_transitions.double()
    last = labels.gather(1, steps.sum(1, keepdim=True) - 1).squeeze(1)
    moved = torch.where(steps[:, 1:], moves[labels[:, :-1], labels[:, 1:]], 0.0)
    gold = scores.gather(2, labels[..., None]).squeeze(2) + torch.cat((start[labels[:, :1]], moved), 1)
    gold = torch.cat((gold, end[last][:, None]), 1)
    possible = torch.where(gold == -torch.inf, 0.0, gold)

    forward = start + scores[:, 0] - possible[:, :1]
    for t in rounds(1, scores.shape[1]):
        onward = detach_impossible(forward[:, :, None] + moves).logsumexp(1) + scores[:, t]
        forward = lasting(torch.where(steps[:, t, None], onward - possible[:, t, None], forward))
    lead = (forward + end - possible[:, -1:]).logsumexp(1)
    # the right labels are among all, so that less than 0 is rounding
    return (lead.clamp(min=0) - (gold - possible).sum(1)).to(emissions)


def _runs(facts: Facts) -> Tensor:
    """Return which rows of the mask are a run of true steps from the first on."""
    mask = facts.inputs.get("mask")
    return torch.tensor(True) if mask is None else mask[:, 0] & (mask[:, 1:] <= mask[:, :-1]).all(1)
