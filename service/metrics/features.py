"""Distances between two sets of features, such as those of generated and of real images."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from service.catalogue.metric import Undefined, Value, Weights, metric
from service.catalogue.spec import Example, Params, Prediction, SizeRange, Target
from service.catalogue.table import Array, Columns, Ragged, Table
from service.metrics.finishes import column
from service.metrics.outputs import exponent_of, times

_LINALG: Any = torch.linalg
LEAST = 2
"""Samples that a covariance needs."""


def _finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
    """Compare the means and covariances of both sets; weights count samples."""
    sides = [rows.ragged(name) for name in ("predictions", "targets")]
    exponent = exponent_of(*(side.values for side in sides))
    known = [_finite(np.ldexp(side.values, exponent) if exponent else side.values) for side in sides]

    def run(weights: Weights) -> Value:
        counts = [float(weights[side.rows].sum()) for side in sides]
        if min(np.count_nonzero(weights[side.rows]) for side in sides) < LEAST:
            return Undefined("a covariance needs two samples of each set")
        if min(counts) < LEAST:
            return Undefined("weights count samples here, and these are too small or too large")
        if any(weights[side.rows[bad]].any() for side, (_, bad) in zip(sides, known, strict=True)):
            return Undefined("a feature is infinite")
        moments = [
            _moments(values, weights[side.rows], n)
            for side, (values, _), n in zip(sides, known, counts, strict=True)
        ]
        (mean, root), (other, other_root) = moments
        # the trace of the root of a product of covariances, without the root of rounding errors
        shared = float(_LINALG.svdvals(root @ other_root.T).sum())
        spread = float(root.square().sum() + other_root.square().sum())
        return times(max(0.0, float(np.square(mean - other).sum()) + spread - 2 * shared), -2 * exponent)

    return run


@metric(
    title="Fréchet distance",
    tasks=("generative", "image"),
    aliases=("fid", "frechet_inception_distance"),
    keywords=("FID", "GAN", "diffusion models", "image generation", "audio generation"),
    finish=_finish,
    requires=(SizeRange("D", least=1, most=4096),),
    work=("N D D/512", "M D D/512", "D D D/128"),
    redraw=("N D D/512", "M D D/512", "D D D/128"),
    higher_is_better=False,
    example=Example(sizes={"N": 4, "M": 4}),
)
def frechet_distance(
    predictions: Annotated[Tensor, Prediction("N D")],
    targets: Annotated[Tensor, Target("M D")],
) -> Columns:
    r"""The distance between two sets of features as if both were Gaussian: of FID, where the features are Inception's.

    Formula:
        \lVert \mu - \mu' \rVert^2 + \operatorname{tr}\bigl(\Sigma + \Sigma' - 2 (\Sigma \Sigma')^{1/2}\bigr)

    Args:
        predictions: Features of generated samples.
        targets: Features of real samples: another number of them, not paired with the generated ones.

    Use when:
        Generators of images or sounds are compared by features that a fixed network computes.

    Pitfalls:
        Depends on the network, its preprocessing and the number of samples: it is biased upwards for few of them, so compare
        equal numbers, some thousands. The squared distance, as FID is reported. Covariances divide by the count minus one. A
        row holds one sample of each set, as far as both go: an evaluation and an interval take them together. Weights and
        slices are refused where the sets differ in number.

    Sources:
        - Heusel et al. (2017), GANs Trained by a Two Time-Scale Update Rule, https://arxiv.org/abs/1706.08500
    """
    count = max(len(predictions), len(targets))
    return {"predictions": _side(predictions, count), "targets": _side(targets, count)}


def _side(features: Tensor, count: int) -> Ragged:
    """Return a set as a column of ``count`` rows, of which the first have a sample."""
    lengths = (np.arange(count) < len(features)).astype(np.int64)
    return Ragged(lengths, column(features.to(torch.float64)))


def _finite(features: Array) -> tuple[Array, Array]:
    """Return features with zeros for samples that are not finite, and the places of these."""
    bad = np.flatnonzero(~np.isfinite(features.sum(1)))
    bad = bad[~np.isfinite(features[bad]).all(1)]
    if len(bad):
        features = features.copy()
        features[bad] = 0.0
    return features, bad


def _moments(features: Array, weights: Weights, count: float) -> tuple[Array, Tensor]:
    """Return the mean, and a root ``R`` of the covariance ``R^T R``."""
    mean: Array = (weights[:, None] * features).sum(0) / count
    spread = (features - mean) * np.sqrt(weights / (count - 1))[:, None]
    # its threads are those of the service; the ones of numpy and scipy get in the way of other calls
    return mean, _LINALG.qr(torch.as_tensor(spread), mode="r").R
