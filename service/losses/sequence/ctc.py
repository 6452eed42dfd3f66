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
from service.catalogue.spec import (
    Condition,
    Example,
    MeanTerms,
    Prediction,
    SizeRange,
    Target,
    Unreduced,
)
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
    loss = loss.to(log_probabilities)
    return AlignmentLoss(loss, loss / target_lengths.clamp(min=1) if mean_by_target_length else loss)
