"""Cross entropies from their definition, a sum over classes of scipy's log-softmax."""

from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
INF = float("inf")
NAN = float("nan")


@oracles.of(
    "cross_entropy",
    draws=[
        ({"N": 5, "C": 7, "...": (2, 3)}, {"label_smoothing": 0.3}),
        ({"N": 4, "C": 3, "...": ()}, {"weight": (0.5, 0.3, 2.0), "label_smoothing": 0.1}),
        ({"N": 4, "C": 3, "...": (2,)}, {"weight": (0.5, 0.0, 2.0)}),
        ({"N": 3, "C": 2, "...": ()}, {"label_smoothing": 1.0}),
        ({"N": 6, "C": 3, "...": ()}, {"ignore_index": 1}),
        ({"N": 6, "C": 3, "...": ()}, {"ignore_index": 1, "weight": (1.0, 2.0, 3.0), "label_smoothing": 0.2}),
    ],
    edges=[
        # saturated logits, and a target that is ignored
        Edge(
            {"logits": [[1e4, -1e4], [0, 1]], "targets": [1, -100]}, gradients={"logits": [[1, -1], [0, 0]]}
        ),
        # a class of probability zero costs nothing where its target is zero: 0 log 0 = 0
        Edge({"logits": [2.0, 1.0], "targets": [0.0, 1.0]}),
        Edge({"logits": [2.0, -INF], "targets": [1.0, 0.0]}, gradients={"logits": [0, 0]}),
        Edge({"logits": [[2.0, -INF]], "targets": [0]}, gradients={"logits": [[0, 0]]}),
        Edge(
            {"logits": [[0, -INF, 0]], "targets": [[0.75, 0, 0.25]]},
            gradients={"logits": [[-0.25, 0, 0.25]]},
        ),
        Edge(
            {"logits": [[0, -INF, 0]], "targets": [1]},
            {"weight": [1, 0, 1]},
            gradients={"logits": [[0, 0, 0]]},
        ),
        Edge(
            {"logits": [[0, -INF, 0], [NAN, 0, 0]], "targets": [0, -100]},
            {"weight": [1, 0, 1], "label_smoothing": 0.3},
        ),
        Edge(
            {"logits": [[1.0, 2.0], [3.0, 4.0]], "targets": [-100, -100]}, gradients={"logits": [[0, 0]] * 2}
        ),
        # every pixel of an image
        Edge({"logits": [[[[0.0, 5.0]], [[1.0, -5.0]]]], "targets": [[[0, -100]]]}),
    ],
)
def cross_entropy(
    logits: Array, targets: Array, *, weight: Any, ignore_index: int, label_smoothing: float
) -> dict[str, Array]:
    axis = 0 if logits.ndim == 1 else 1
    classes = np.moveaxis(logits, axis, -1)
    w = np.ones(classes.shape[-1]) if weight is None else np.array(weight)
    indexed = targets.dtype.kind == "i"
    hard = np.eye(classes.shape[-1])[np.where(targets == ignore_index, 0, targets)] if indexed else None
    q = hard if hard is not None else np.moveaxis(targets, axis, -1)
    smooth = w * ((1 - label_smoothing) * q + label_smoothing / classes.shape[-1])
    log_p = log_softmax(np.where(np.isnan(classes), 0, classes), axis=-1)
    loss = -np.multiply(smooth, log_p, where=smooth > 0, out=np.zeros_like(log_p)).sum(-1)
    if hard is None:
        return {"loss": loss, "divisor": np.ones_like(loss)}
    counted = targets != ignore_index
    return {"loss": np.where(counted, loss, 0), "divisor": (hard * w).sum(-1) * counted}


@oracles.of(
    "nll",
    draws=[
        ({"N": 5, "C": 4, "...": (2, 3)}, {"weight": (0.5, 0.0, 2.0, 1.0)}),
        ({"N": 9, "C": 2, "...": ()}, {"ignore_index": 0}),
    ],
    edges=[
        Edge(
            {"log_probabilities": [[0.0, -INF], [NAN, NAN], [-1e4, 0]], "targets": [0, -100, 0]},
            gradients={"log_probabilities": [[-1, 0], [0, 0], [-1, 0]]},
        ),
        Edge({"log_probabilities": [[0.0, -INF]], "targets": [1]}, {"weight": [1, 0]}),
        Edge({"log_probabilities": [[-1.0, -2.0]], "targets": [-100]}),
    ],
)
def nll(log_probabilities: Array, targets: Array, *, weight: Any, ignore_index: int) -> dict[str, Array]:
    loss, divisor = np.zeros(targets.shape), np.zeros(targets.shape)
    for place in np.ndindex(*targets.shape):
        if (y := targets[place]) == ignore_index:
            continue
        divisor[place] = 1 if weight is None else weight[y]
        if divisor[place]:
            loss[place] = -divisor[place] * log_probabilities[(place[0], y, *place[1:])]
    return {"loss": loss, "divisor": divisor}


@oracles.of(
    "linear_cross_entropy",
    draws=[
        ({"N": 5, "C": 7, "D": 3}, {"label_smoothing": 0.3}),
        ({"N": 5, "C": 2, "D": 1}, {"weight": (0.5, 2.0), "ignore_index": 1}),
    ],
    edges=[
        Edge(
            {"features": [[1.0, 2.0], [NAN, NAN]], "weights": [[1e4, 0], [0, -1e4]], "targets": [1, -100]},
            gradients={"features": [[1e4, 1e4], [0, 0]], "weights": [[1, 2], [-1, -2]]},
        ),
    ],
)
def linear_cross_entropy(features: Array, weights: Array, targets: Array, **params: Any) -> dict[str, Array]:
    logits = np.array([[sum(f * v) for v in weights] for f in features])
    return cross_entropy(logits, targets, **params)


@oracles.of(
    "logit_adjusted_cross_entropy",
    draws=[
        ({"N": 5, "C": 3}, {"class_priors": (900.0, 90.0, 10.0), "tau": 1.5}),
        ({"N": 5, "C": 2}, {"class_priors": (1e-9, 0.5), "tau": -1.0}),
    ],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4]], "targets": [1]},
            {"class_priors": [1, 3]},
            gradients={"logits": [[1, -1]]},
        ),
    ],
)
def logit_adjusted_cross_entropy(logits: Array, targets: Array, *, class_priors: Any, tau: float) -> Array:
    shares = np.array(class_priors) / sum(class_priors)
    rows = np.arange(len(targets))
    # each class counts pi ** tau times in the softmax
    scale = logits.max(1, keepdims=True)
    with np.errstate(divide="ignore"):
        moderate = -np.log(shares[targets] ** tau * np.exp(logits - scale)[rows, targets]) + np.log(
            (shares**tau * np.exp(logits - scale)).sum(1)
        )
    saturated = log_softmax(logits + tau * np.log(shares), axis=1)[rows, targets]
    return np.where(np.isfinite(moderate), moderate, -saturated)


@oracles.of(
    "poly1_cross_entropy",
    draws=[({"N": 4, "C": 5, "...": (2, 2)}, {"epsilon": -0.8}), ({"N": 4, "...": ()}, {"epsilon": 0.0})],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [-1e4, 1e4]], "targets": [1, 1]},
            gradients={"logits": [[1, -1], [0, 0]]},
        )
    ],
)
def poly1_cross_entropy(logits: Array, targets: Array, *, epsilon: float) -> Array:
    return _surprise(logits, targets) + epsilon * _rivals(logits, targets)


@oracles.of(
    "generalized_cross_entropy",
    draws=[
        ({"N": 4, "C": 5, "...": (2, 2)}, {"q": 1.0}),
        ({"N": 4, "C": 2, "...": ()}, {"q": 1e-9}),
    ],
    edges=[
        Edge({"logits": [[1e4, -1e4]], "targets": [1]}, {"q": 0.5}, gradients={"logits": [[0, 0]]}),
        Edge({"logits": [[1e4, -1e4]], "targets": [0]}, {"q": 0.5}, gradients={"logits": [[0, 0]]}),
        Edge({"logits": [[0.0, -INF]], "targets": [1]}, gradients={"logits": [[0, 0]]}),
    ],
)
def generalized_cross_entropy(logits: Array, targets: Array, *, q: float) -> Array:
    # the Box-Cox transform of p at the true class, in as many digits as a tiny q needs
    surprise = _surprise(logits, targets)
    with mpmath.workdps(40):
        return np.vectorize(lambda s: float((1 - mpmath.e ** (-mpmath.mpf(q) * mpmath.mpf(float(s)))) / q))(
            surprise
        )


@oracles.of(
    "symmetric_cross_entropy",
    draws=[
        ({"N": 4, "C": 5, "...": (2, 2)}, {"alpha": 1.0, "beta": 0.3, "log_zero": -9.21}),
        ({"N": 4, "C": 5, "...": ()}, {"alpha": 0.0, "beta": 0.0}),
    ],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [-1e4, 1e4]], "targets": [1, 1]},
            gradients={"logits": [[0.1, -0.1], [0, 0]]},
        )
    ],
)
def symmetric_cross_entropy(
    logits: Array, targets: Array, *, alpha: float, beta: float, log_zero: float
) -> Array:
    p = softmax(np.moveaxis(logits, 1, -1), axis=-1)
    reverse = -(p * np.where(_hot(logits, targets), 0.0, log_zero)).sum(-1)
    return alpha * _surprise(logits, targets) + beta * reverse


def _hot(logits: Array, targets: Array) -> Array:
    """Return, with the classes last, which is the true one."""
    return np.eye(logits.shape[1], dtype=bool)[targets]


def _surprise(logits: Array, targets: Array) -> Array:
    """Return -log p of the true class."""
    log_p = log_softmax(np.moveaxis(logits, 1, -1), axis=-1)
    return -np.where(_hot(logits, targets), log_p, 0).sum(-1)


def _rivals(logits: Array, targets: Array) -> Array:
    """Return the probability of all classes but the true one."""
    p = softmax(np.moveaxis(logits, 1, -1), axis=-1)
    return np.where(_hot(logits, targets), 0, p).sum(-1)
