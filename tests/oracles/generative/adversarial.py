"""Adversarial losses from their definitions: sigmoids in high precision, sample by sample."""

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

from tests.oracles.oracle import Edge, Oracles

oracles = Oracles()
Array = NDArray[Any]
DRAWS: Any = [({"...": ()}, {}), ({"...": (2, 3)}, {})]


def elementwise(formula: Callable[..., Any]) -> Callable[..., Array]:
    """Apply a formula of single numbers to arrays, with enough digits for e^-10000 beside 1."""

    def one(*numbers: float) -> float:
        with mp.workdps(5000 if max(map(abs, numbers)) > 1000 else 40):
            return float(formula(*map(mp.mpf, numbers)))

    return lambda *arrays: np.vectorize(one, otypes=[float])(*arrays)


def log_sigmoid(score: Any) -> Any:
    return mp.log(1 / (1 + mp.exp(-score)))


@oracles.of(
    "lsgan_discriminator",
    draws=[*DRAWS, ({"...": (4,)}, {"real_target": 0.9, "fake_target": -1.0})],
    edges=[
        Edge(
            {"real_scores": [1.0, -1e4], "fake_scores": [0.0, 1e4]},
            gradients={"real_scores": [0, -10001], "fake_scores": [0, 1e4]},
        )
    ],
)
def lsgan_discriminator(
    real_scores: Array, fake_scores: Array, *, real_target: float, fake_target: float
) -> Array:
    return lsgan_generator(real_scores, generator_target=real_target) + lsgan_generator(
        fake_scores, generator_target=fake_target
    )


@oracles.of(
    "lsgan_generator",
    draws=[*DRAWS, ({"...": (4,)}, {"generator_target": 0.0})],
    edges=[Edge({"fake_scores": [1.0, -1e4]}, gradients={"fake_scores": [0, -10001]})],
)
def lsgan_generator(fake_scores: Array, *, generator_target: float) -> Array:
    return fake_scores**2 / 2 - fake_scores * generator_target + generator_target**2 / 2


@oracles.of(
    "wasserstein_critic",
    draws=DRAWS,
    edges=[
        Edge(
            {"real_scores": [1e4, 0.0], "fake_scores": [-1e4, 0.0]},
            gradients={"real_scores": [-1, -1], "fake_scores": [1, 1]},
        )
    ],
)
def wasserstein_critic(real_scores: Array, fake_scores: Array) -> Array:
    return elementwise(lambda real, fake: fake - real)(real_scores, fake_scores)


@oracles.of(
    "wasserstein_generator",
    draws=DRAWS,
    edges=[Edge({"fake_scores": [-1e4, 0.0]}, gradients={"fake_scores": [-1, -1]})],
)
def wasserstein_generator(fake_scores: Array) -> Array:
    return elementwise(lambda fake: -fake)(fake_scores)


@oracles.of(
    "gan_discriminator",
    draws=DRAWS,
    edges=[
        Edge(
            {"real_scores": [-1e4, 1e4, 0.0], "fake_scores": [1e4, -1e4, 0.0]},
            gradients={"real_scores": [-1, 0, -0.5], "fake_scores": [1, 0, 0.5]},
        ),
        # beyond 20, where torch's softplus is a line
        Edge({"real_scores": [-20.5, 25.0], "fake_scores": [30.0, -21.0]}),
    ],
)
def gan_discriminator(real_scores: Array, fake_scores: Array) -> Array:
    return elementwise(lambda real, fake: -log_sigmoid(real) - log_sigmoid(-fake))(real_scores, fake_scores)


@oracles.of(
    "gan_generator_minimax",
    draws=DRAWS,
    edges=[
        # saturates where the discriminator wins
        Edge({"fake_scores": [1e4, -1e4, 0.0, 21.0]}, gradients={"fake_scores": [-1, 0, -0.5, np.nan]}),
    ],
)
def gan_generator_minimax(fake_scores: Array) -> Array:
    return elementwise(lambda fake: log_sigmoid(-fake))(fake_scores)


@oracles.of(
    "gan_generator_nonsaturating",
    draws=DRAWS,
    edges=[Edge({"fake_scores": [1e4, -1e4, 0.0, -21.0]}, gradients={"fake_scores": [0, -1, -0.5, np.nan]})],
)
def gan_generator_nonsaturating(fake_scores: Array) -> Array:
    return elementwise(lambda fake: -log_sigmoid(fake))(fake_scores)


@oracles.of(
    "hinge_gan_discriminator",
    draws=DRAWS,
    edges=[
        # no gradient at the kinks, nor beyond them
        Edge(
            {"real_scores": [1.0, 1e4, -1e4], "fake_scores": [-1.0, -1e4, 1e4]},
            gradients={"real_scores": [0, 0, -1], "fake_scores": [0, 0, 1]},
        )
    ],
)
def hinge_gan_discriminator(real_scores: Array, fake_scores: Array) -> Array:
    # max(0, x) is half of x + |x|
    real, fake = 1 - real_scores, 1 + fake_scores
    return (real + np.abs(real) + fake + np.abs(fake)) / 2


@oracles.of(
    "hinge_gan_generator",
    draws=DRAWS,
    edges=[Edge({"fake_scores": [1e4, -1e4, 0.0]}, gradients={"fake_scores": [-1, -1, -1]})],
)
def hinge_gan_generator(fake_scores: Array) -> Array:
    return elementwise(lambda fake: -fake)(fake_scores)


@oracles.of(
    "relativistic_discriminator",
    draws=[*DRAWS, ({"...": (7,)}, {})],
    edges=[
        Edge({"real_scores": [1e4, -1e4], "fake_scores": [-1e4, 1e4]}),
        # alike: a move of all real scores moves their mean too, so both terms pull
        Edge(
            {"real_scores": [0.0, 0.0], "fake_scores": [0.0, 0.0]},
            gradients={"real_scores": [-1, -1], "fake_scores": [1, 1]},
        ),
    ],
)
def relativistic_discriminator(real_scores: Array, fake_scores: Array) -> Array:
    real = elementwise(lambda score: -log_sigmoid(score))(real_scores - fake_scores.mean())
    fake = elementwise(lambda score: -log_sigmoid(-score))(fake_scores - real_scores.mean())
    return real + fake


@oracles.of(
    "relativistic_generator",
    draws=[*DRAWS, ({"...": (7,)}, {})],
    edges=[
        Edge({"real_scores": [1e4, -1e4], "fake_scores": [-1e4, 1e4]}),
        Edge(
            {"real_scores": [0.0, 0.0], "fake_scores": [0.0, 0.0]},
            gradients={"real_scores": [1, 1], "fake_scores": [-1, -1]},
        ),
    ],
)
def relativistic_generator(real_scores: Array, fake_scores: Array) -> Array:
    return relativistic_discriminator(fake_scores, real_scores)
