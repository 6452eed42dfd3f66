"""Focal losses element by element in high precision, in the two cases that their authors write down."""

from typing import Any

import mpmath
import numpy as np
from mpmath import mpf
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
NAN = float("nan")


@oracles.of(
    "sigmoid_focal",
    draws=[
        ({"...": (7, 2)}, {"alpha": None, "gamma": 0.5}),
        ({"...": ()}, {"alpha": 1.0, "gamma": 0.0}),
        ({"...": (5,)}, {"alpha": 0.0, "gamma": 5.0}),
    ],
    edges=[
        Edge(
            {"logits": [[NAN, 1.0], [1e300, -2.0]], "targets": [[-1, 1], [-1, 0.3]]},
            {"ignore_index": -1},
            {"logits": [[0, NAN], [0, NAN]]},
        ),
        Edge({"logits": [3.0, NAN], "targets": [255, 255]}, {"ignore_index": 255}, {"logits": [0, 0]}),
        Edge({"logits": [3.0, 1.0, -1.0], "targets": [0, 1, 0]}, {"ignore_index": 0, "gamma": 0.5}),
        Edge(
            {"logits": [1e4, -1e4, 1e4, -1e4], "targets": [1, 0, 0, 1]},
            gradients={"logits": [0, 0, 0.75, -0.25]},
        ),
        # a right answer that is certain: the power has an infinite slope there
        Edge({"logits": [1e4, -1e4], "targets": [1, 0]}, {"gamma": 0.3}, gradients={"logits": [0, 0]}),
        Edge({"logits": [0.0, 40.0, -40.0, 800.0], "targets": [1, 1, 0, 0]}, {"gamma": 0.5}),
    ],
)
def sigmoid_focal(
    logits: Array, targets: Array, *, alpha: float | None, gamma: float, ignore_index: int | None
) -> dict[str, Array]:
    def one(z: float, t: float) -> float:
        p = 1 / (1 + mpmath.exp(-mpf(z)))
        miss = 1 - (p * t + (1 - p) * (1 - t))
        surprise = t * mpmath.log(1 + mpmath.exp(-mpf(z))) + (1 - t) * mpmath.log(1 + mpmath.exp(mpf(z)))
        return float((1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)) * miss**gamma * surprise)

    # enough digits for 1 - sigmoid(1e4), which begins 4343 places behind the point
    with mpmath.workdps(4400):
        counted = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
        loss = np.zeros(targets.shape)
        loss[counted] = [one(z, t) for z, t in zip(logits[counted], targets[counted], strict=True)]
    return {"loss": loss, "divisor": counted}


@oracles.of(
    "softmax_focal",
    draws=[
        ({"N": 4, "C": 3, "...": (2, 2)}, {"alpha": (0.2, 0.0, 3.0), "gamma": 0.5}),
        ({"N": 4, "C": 5, "...": ()}, {"alpha": 0.25, "gamma": 0.0}),
        ({"N": 6, "C": 2, "...": ()}, {"ignore_index": 1, "alpha": (0.2, 0.5)}),
    ],
    edges=[
        Edge(
            {"logits": [[1e4, -1e4], [-1e4, 1e4], [NAN, 1]], "targets": [1, 1, -100]},
            gradients={"logits": [[1, -1], [0, 0], [0, 0]]},
        ),
        Edge({"logits": [[1e4, -1e4]], "targets": [0]}, {"gamma": 0.5}, gradients={"logits": [[0, 0]]}),
        Edge({"logits": [[1.0, 2.0]], "targets": [-100]}, gradients={"logits": [[0, 0]]}),
    ],
)
def softmax_focal(
    logits: Array, targets: Array, *, alpha: Any, gamma: float, ignore_index: int
) -> dict[str, Array]:
    loss, counted = np.zeros(targets.shape), targets != ignore_index
    for place in zip(*np.nonzero(counted), strict=True):
        y, scores = targets[place], logits[(place[0], slice(None), *place[1:])]
        rivals = mpmath.fsum(mpmath.exp(mpf(z) - mpf(scores[y])) for k, z in enumerate(scores) if k != y)
        a = 1.0 if alpha is None else alpha[y] if isinstance(alpha, tuple) else alpha
        loss[place] = float(a * (rivals / (1 + rivals)) ** gamma * mpmath.log1p(rivals))
    return {"loss": loss, "divisor": counted}


@oracles.of(
    "asymmetric",
    draws=[
        ({"...": (6, 3)}, {"gamma_neg": 0.5, "gamma_pos": 0.5, "clip": 0.3}),
        ({"...": (5,)}, {"gamma_neg": 0.0, "gamma_pos": 0.0, "clip": 0.0}),
        ({"...": ()}, {"eps": 0.4}),
    ],
    edges=[
        Edge(
            {"logits": [1e4, -1e4, 1e4, -1e4], "targets": [1, 0, 0, 1]},
            gradients={"logits": [0, 0, 0, 0]},
        ),
        Edge(
            {"logits": [1e4, -1e4, 1e4, -1e4], "targets": [1, 0, 0, 1]},
            {"gamma_neg": 0.5, "gamma_pos": 0.5, "clip": 0.0},
            gradients={"logits": [0, 0, 0, 0]},
        ),
        Edge({"logits": [17.0, -17.0], "targets": [0, 1]}, {"clip": 0.0}),
        # easy negatives
        Edge({"logits": [-3.0, -30.0], "targets": [0, 0]}, gradients={"logits": [0, 0]}),
    ],
)
def asymmetric(
    logits: Array, targets: Array, *, gamma_neg: float, gamma_pos: float, clip: float, eps: float
) -> Array:
    def one(z: float, t: float) -> float:
        p = 1 / (1 + mpmath.exp(-mpf(z)))
        if t == 1:
            return float(-((1 - p) ** gamma_pos) * mpmath.log(max(p, eps)))
        shifted = max(p - clip, mpf(0))
        return float(-(shifted**gamma_neg) * mpmath.log(max(1 - shifted, eps)))

    with mpmath.workdps(60):
        return np.vectorize(one, otypes=[float])(logits, targets)
