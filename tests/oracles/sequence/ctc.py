"""CTC by enumeration: every path over the frames is collapsed and compared with the labels."""

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]


def alignments(frames: int, classes: int, labels: list[int], blank: int) -> list[tuple[int, ...]]:
    """All paths that become the labels once repeats are merged and blanks dropped."""
    return [
        path
        for path in itertools.product(range(classes), repeat=frames)
        if [c for c, _ in itertools.groupby(path) if c != blank] == labels
    ]


def likelihoods(frames: Array, labels: list[int], blank: int) -> list[tuple[tuple[int, ...], float]]:
    """Every alignment with its probability."""
    paths = alignments(len(frames), frames.shape[1], labels, blank)
    return [(path, math.exp(sum(frames[t, c] for t, c in enumerate(path)))) for path in paths]


def torch_gradient(frames: Array, labels: list[int], blank: int = 0) -> Array:
    """Torch's result: probabilities minus the posterior of each class at each time."""
    weighed = likelihoods(frames, labels, blank)
    posterior = np.zeros_like(frames)
    for path, likelihood in weighed:
        for t, c in enumerate(path):
            posterior[t, c] += likelihood / sum(p for _, p in weighed)
    return np.exp(frames) - posterior


FRAMES = log_softmax(np.random.default_rng(3).normal(size=(4, 1, 3)), axis=-1)
"""Four frames of one sample with three classes."""
FORBIDDEN = np.array([[-1.0, -np.inf, -0.5], [-1.6, -1.2, -0.7], [-0.5, -0.9, -np.inf]])[:, None]
"""Three frames in which some classes are impossible."""


@oracles.of(
    "ctc",
    draws=[
        ({"T": 5, "N": 3, "C": 3, "S": 3}, {"blank": 2}),
        ({"T": 4, "N": 2, "C": 3, "S": 1}, {"blank": 1, "mean_by_target_length": False}),
        ({"T": 3, "N": 2, "C": 2, "S": 0}, {}),
        ({"T": 2, "N": 4, "C": 4, "S": 3}, {"zero_infinity": True}),
    ],
    edges=[
        Edge(
            {"log_probabilities": FRAMES, "targets": [[1, 1]], "input_lengths": [4], "target_lengths": [2]},
            gradients={"log_probabilities": torch_gradient(FRAMES[:, 0], [1, 1])[:, None]},
        ),
        # frames past the length and labels past theirs may be anything; the gradient is 0 there
        Edge(
            {
                "log_probabilities": np.concatenate([FRAMES, np.full((1, 1, 3), np.nan)]),
                "targets": [[2, -7, 0]],
                "input_lengths": [4],
                "target_lengths": [1],
            },
            gradients={
                "log_probabilities": np.concatenate(
                    [torch_gradient(FRAMES[:, 0], [2])[:, None], np.zeros((1, 1, 3))]
                )
            },
        ),
        # no labels: all blanks
        Edge(
            {"log_probabilities": FRAMES, "targets": [[0]], "input_lengths": [2], "target_lengths": [0]},
            gradients={
                "log_probabilities": np.concatenate(
                    [torch_gradient(FRAMES[:2, 0], [])[:, None], np.zeros((2, 1, 3))]
                )
            },
        ),
        # a repeated label needs a blank between: three frames at least
        Edge({"log_probabilities": FRAMES, "targets": [[1, 1]], "input_lengths": [2], "target_lengths": [2]}),
        Edge(
            {"log_probabilities": FRAMES, "targets": [[1, 1]], "input_lengths": [2], "target_lengths": [2]},
            {"zero_infinity": True},
            {"log_probabilities": np.zeros((4, 1, 3))},
        ),
        # classes of probability 0
        Edge(
            {"log_probabilities": FORBIDDEN, "targets": [[2]], "input_lengths": [3], "target_lengths": [1]},
            gradients={"log_probabilities": torch_gradient(FORBIDDEN[:, 0], [2])[:, None]},
        ),
    ],
)
def ctc(
    log_probabilities: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    *,
    blank: int,
    zero_infinity: bool,
    mean_by_target_length: bool,
) -> dict[str, Array]:
    loss = np.zeros(len(targets))
    for n, (frames, labels) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        weighed = likelihoods(log_probabilities[:frames, n], targets[n, :labels].tolist(), blank)
        total = math.fsum(likelihood for _, likelihood in weighed)
        loss[n] = -math.log(total) if total else 0.0 if zero_infinity else np.inf
    by_label = loss / np.maximum(target_lengths, 1)
    return {"loss": loss, "mean_terms": by_label if mean_by_target_length else loss}
