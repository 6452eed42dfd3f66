"""Connectionist temporal classification: labels in order, but at unknown times."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Generator, Tensor

from service.catalogue.declare import loss
from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts, Kind, Lengths, LogProbabilities
from service.catalogue.rounds import lasting, rounds
from service.catalogue.spec import (
    Condition,
    Example,
    MeanTerms,
    Prediction,
    SizeRange,
    Target,
    Unreduced,
)
from service.catalogue.twice import differentiated_twice
from service.losses.sequence.impossible import detach_impossible


@dataclass(frozen=True, slots=True)
class Frames(LogProbabilities):
    """Log-probabilities, time first; the frames past a sample's input length may hold anything."""

    def describe(self) -> str:
        return f"{LogProbabilities.describe(self)}, in the frames that input_lengths counts"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        past = torch.arange(len(values))[:, None] >= facts.inputs["input_lengths"]
        return LogProbabilities.admits(self, values, facts) | past[..., None]


@dataclass(frozen=True, slots=True)
class Labels(Domain):
    """Integers that index ``C``, the blank left out."""

    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return "integers from 0 to C - 1 other than blank"

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= 0) & (values < facts.size("C")) & (values != facts.params["blank"])

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        label = torch.randint(max(1, facts.size("C") - 1), shape, generator=rng)
        return label + (label >= facts.params["blank"])


IMPOSSIBLE = -1e290
"""Less than any log-probability of an alignment, yet finite, so that its slope is no NaN."""


class Alignment(NamedTuple):
    """Labels to align: a row for each sample, whose lengths count; and the class that stands for no label."""

    targets: Tensor
    input_lengths: Tensor
    target_lengths: Tensor
    blank: int

    def states(self) -> tuple[Tensor, Tensor]:
        """Return the classes with a blank around each label, and which of them may follow the last but one."""
        targets, count = self.targets, self.targets.shape[1]
        counted = torch.arange(count, device=targets.device) < self.target_lengths[:, None]
        labels = targets.new_full((len(targets), 2 * count + 1), self.blank)
        labels[:, 1::2] = torch.where(counted, targets, self.blank)
        return labels, (labels != self.blank) & (labels != F.pad(labels, (2, 0), value=self.blank)[:, :-2])


class AlignmentLoss(NamedTuple):
    """A loss per sample, and the terms that the mean averages instead."""

    loss: Annotated[Tensor, Unreduced("N")]
    mean_terms: Annotated[Tensor, MeanTerms("N")]


@loss(
    title="CTC",
    tasks=("nlp", "sequence"),
    aliases=("connectionist_temporal_classification",),
    keywords=(
        "speech recognition",
        "ASR",
        "OCR",
        "handwriting recognition",
        "text recognition",
        "unaligned sequences",
    ),
    exact_gradient=False,
    # torch has no batching rule for it
    joins="N",
    requires=(
        SizeRange("S", least=0),
        Condition(
            "/params/blank",
            "a blank below C",
            lambda facts: f"{facts.params['blank']} with C = {facts.size('C')}",
            lambda facts: facts.params["blank"] < facts.size("C"),
        ),
    ),
    example=Example(sizes={"T": 6, "C": 4, "S": 2}),
    work=("T N 3S", "2 T N", "log_probabilities"),
    twice="8192 T",
)
def ctc(
    log_probabilities: Annotated[Tensor, Prediction("T N C", Frames())],
    targets: Annotated[Tensor, Target("N S", Labels(), where="target_lengths")],
    input_lengths: Annotated[Tensor, Target("N", Lengths("T", least=1))],
    target_lengths: Annotated[Tensor, Target("N", Lengths("S"))],
    *,
    blank: Annotated[int, Ge(0)] = 0,
    zero_infinity: bool = False,
    mean_by_target_length: bool = True,
) -> AlignmentLoss:
    r"""Negative log-probability of the labels under all their alignments: speech, handwriting.

    Formula:
        -\log \sum_{\pi \in \mathcal B^{-1}(y)} \prod_t p_{t, \pi_t}

    Args:
        log_probabilities: Log-probabilities of the classes at each time: time first, then samples.
        targets: The labels of each sample in order, without blanks, padded at the end with anything.
        input_lengths: How many frames of each sample count.
        target_lengths: How many labels each sample has.
        blank: Index of the class that stands for no label.
        zero_infinity: Whether a sample without any alignment costs 0, with gradient 0, in place of infinity.
        mean_by_target_length: Whether the mean divides each loss by its number of labels first.

    Use when:
        The order of the labels is known, but not when each of them happens.

    Pitfalls:
        Takes log-probabilities, so the result of a log-softmax, time first. The mean divides by the
        number of labels as torch does; other libraries do not. Fewer frames than labels plus repeated
        neighbours cannot be aligned: infinity. The gradient is that of torch, which is the derivative
        only through a log-softmax: chain it through yours. A sample that cannot be aligned has no
        gradient.

    Sources:
        - Graves et al. (2006), Connectionist Temporal Classification,
          https://doi.org/10.1145/1143844.1143891
    """
    if len(targets) == 0:
        # torch refuses to align no samples
        nothing = log_probabilities.sum((0, 2))
        return AlignmentLoss(nothing, nothing)
    # torch reads both on the host, and again for the slopes
    lengths = torch.stack((input_lengths, target_lengths)).cpu()
    # in float64, as the slope is the exponential of a difference of sums over all frames
    frames = detach_impossible(log_probabilities).double()
    if differentiated_twice() is not None:
        loss = _by_recursion(frames, Alignment(targets, input_lengths, target_lengths, blank))
        loss = torch.where(loss > -IMPOSSIBLE / 2, 0.0 if zero_infinity else torch.inf, loss).to(
            log_probabilities
        )
        return _with_mean_terms(loss, target_lengths, mean_by_target_length)
    loss = F.ctc_loss(
        frames,
        # int64 targets also keep CUDA to the native kernel, which is the exact and repeatable one
        targets,
        lengths[0],
        lengths[1],
        blank=blank,
        reduction="none",
        zero_infinity=zero_infinity,
    )
    if frames.requires_grad:
        infeasible = loss.detach().isinf()[:, None]

        def known(slope: Tensor) -> Tensor:
            # torch's is NaN where labels have no alignment, but no frame makes that less impossible
            return slope.masked_fill(infeasible, 0.0)

        cast(Any, frames).register_hook(known)
    return _with_mean_terms(loss.to(log_probabilities), target_lengths, mean_by_target_length)


def _with_mean_terms(loss: Tensor, target_lengths: Tensor, by_length: bool) -> AlignmentLoss:
    """Return losses with what the mean averages."""
    return AlignmentLoss(loss, loss / target_lengths.clamp(min=1) if by_length else loss)


def _by_recursion(frames: Tensor, wanted: Alignment) -> Tensor:
    """Return the loss in arithmetic that can be differentiated twice, with torch's slope: that through a log-softmax.

    Where there is no alignment it is of the size of `IMPOSSIBLE`.
    """
    frames = frames.clamp(min=IMPOSSIBLE)
    counted = torch.arange(len(frames), device=frames.device)[:, None] < wanted.input_lengths
    labels, may_skip = wanted.states()
    each = frames.gather(2, labels.expand(len(frames), *labels.shape))
    first = torch.arange(labels.shape[1], device=frames.device) < 2
    paths = torch.where(first, each[0], IMPOSSIBLE)
    for time in rounds(1, len(frames)):
        ways = [paths, _moved(paths, 1), torch.where(may_skip, _moved(paths, 2), IMPOSSIBLE)]
        longer = torch.stack(ways).logsumexp(0) + each[time]
        paths = lasting(torch.where(counted[time][:, None], longer, paths))
    last = 2 * wanted.target_lengths[:, None]
    ends = paths.gather(1, torch.cat([last, (last - 1).clamp(min=0)], 1))
    # without labels, both ends are one
    ends = torch.where(torch.cat([last < 0, last == 0], 1), IMPOSSIBLE, ends)
    slope = torch.where(counted[..., None], frames.exp(), 0.0)
    return (slope.detach() * (frames - frames.detach())).sum((0, 2)) - ends.logsumexp(1)


def _moved(paths: Tensor, by: int) -> Tensor:
    """Return the log-probabilities of paths that end some states before."""
    return F.pad(paths, (by, 0), value=IMPOSSIBLE)[:, : paths.shape[1]]
