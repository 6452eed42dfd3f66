"""Zero-inflated likelihoods from the probabilities of both parts, in many digits."""

import mpmath
import numpy as np

from tests.oracles.oracle import Edge, Oracles
from tests.oracles.regression.precise import Array, Number, elementwise

oracles = Oracles()
INF = float("inf")
LOGITS = (-1e3, -30.0, -1.0, 0.5, 20.0)
COUNTS = (0.0, 1.0, 37.0, 1e6)


def _columns(names: tuple[str, ...], *choices: tuple[float, ...]) -> dict[str, list[float]]:
    """Return every combination of numbers, as lists by name."""
    return {name: grid.ravel().tolist() for name, grid in zip(names, np.meshgrid(*choices), strict=True)}


@oracles.of(
    "zero_inflated_poisson_nll",
    tolerance=1e-12,
    grows=True,
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {}), ({"...": (4, 5)}, {"log_input": False})],
    edges=[
        Edge(_columns(("predictions", "logits", "targets"), (-20.0, -1.0, 3.6, 13.8), LOGITS, COUNTS)),
        Edge(
            _columns(("predictions", "logits", "targets"), (1e-9, 1.0, 37.0, 1e6), LOGITS, COUNTS),
            {"log_input": False},
        ),
        # fractions of a count, as after a normalisation
        Edge({"predictions": [0.5, 0.5], "logits": [0.5, 0.5], "targets": [1e-30, 2.5]}),
        # the rate itself has no slope towards the rate; no count at all has a simple one
        Edge(
            {"predictions": [0.0, 0.0], "logits": [0.0, 0.0], "targets": [1.0, 0.0]},
            {},
            {
                "predictions": [0, 1 / (np.e + 1)],
                "logits": [0.5, 0.5 - np.e / (np.e + 1)],
                "targets": [1 - np.euler_gamma, 0],
            },
        ),
        # where zeros are certain, they cost nothing, whatever the rate; a rate of 0 makes them certain too
        Edge(
            {"predictions": [800.0, -1e4], "logits": [INF, 3.0], "targets": [0.0, 0.0]},
            {},
            {"predictions": [0, 0], "logits": [0, 0], "targets": [0, 0]},
        ),
        # and where they never are, it is Poisson's
        Edge(
            {"predictions": [0.5, 2.0], "logits": [-INF, -INF], "targets": [0.0, 3.0]},
            {},
            {"predictions": [np.exp(0.5), np.exp(2) - 3], "logits": [0, 0]},
        ),
    ],
)
def zero_inflated_poisson_nll(predictions: Array, logits: Array, targets: Array, *, log_input: bool) -> Array:
    def formula(p: Number, z: Number, y: Number) -> Number:
        rate = mpmath.exp(p) if log_input else p
        return _inflated(z, y, y * mpmath.log(rate) - rate - mpmath.loggamma(y + 1))

    return elementwise(formula, predictions, logits, targets)


@oracles.of(
    "zero_inflated_negative_binomial_nll",
    tolerance=1e-12,
    draws=[({"...": ()}, {}), ({"...": (4, 5)}, {})],
    edges=[
        Edge(
            _columns(
                ("predictions", "dispersions", "logits", "targets"),
                (1e-6, 1.0, 1e5),
                (1e-6, 0.3, 16.1, 1e7),
                LOGITS,
                COUNTS,
            )
        ),
        # of dispersion 1 the zeros that happen have the probability 1 / (1 + mean)
        Edge(
            {"predictions": [1.0], "dispersions": [1.0], "logits": [0.0], "targets": [0.0]},
            {},
            {
                "predictions": [1 / 6],
                "dispersions": [(np.log(2) - 0.5) / 3],
                "logits": [-1 / 6],
                "targets": [0],
            },
        ),
    ],
)
def zero_inflated_negative_binomial_nll(
    predictions: Array, dispersions: Array, logits: Array, targets: Array
) -> Array:
    def formula(p: Number, d: Number, z: Number, y: Number) -> Number:
        choices = mpmath.loggamma(y + d) - mpmath.loggamma(y + 1) - mpmath.loggamma(d)
        return _inflated(z, y, choices + d * mpmath.log(d / (d + p)) + y * mpmath.log(p / (d + p)))

    return elementwise(formula, predictions, dispersions, logits, targets)


def _inflated(z: Number, y: Number, log_probability: Number) -> Number:
    """Return the surprise of a count, of whose probability in the second part the logarithm is given."""
    with mpmath.workdps(1000):
        certain = 1 if z == mpmath.inf else 1 / (1 + mpmath.exp(-z))
        return -mpmath.log(certain * (y == 0) + (1 - certain) * mpmath.exp(log_probability))
