"""Penalties on the slope of a discriminator, from the gradients of its scores with respect to its inputs."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, Unreduced
from service.losses.generative.samples import flattened
from service.losses.vectors import length


@loss(
    title="Gradient penalty",
    tasks=("generative",),
    aliases=("wgan_gp",),
    keywords=(
        "WGAN-GP",
        "Lipschitz",
        "critic",
        "Wasserstein GAN",
    ),
    range=(0, None),
    scales=Scales(2, along=("norm_target",)),
)
def gradient_penalty(
    input_gradients: Annotated[Tensor, Prediction("N ...")],
    *,
    penalty_weight: Annotated[float, Ge(0)] = 10.0,
    norm_target: Annotated[float, Ge(0)] = 1.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Keeps a critic near Lipschitz: the gradient at each sample should have norm one.

    Formula:
        \lambda\, (\lVert g_i \rVert_2 - c)^2

    Args:
        input_gradients: Gradient of the critic's score with respect to each sample it was given.
        penalty_weight: Weight of the penalty, \lambda.
        norm_target: Norm that each gradient should have, c.

    Use when:
        A Wasserstein critic is trained; at random points between real and generated samples, as WGAN-GP does.

    Pitfalls:
        There is no critic here: compute its input gradients, keep their graph, send them, and continue the
        backward pass from the gradient that is returned. The norm is over a whole sample, not per channel. A
        gradient of exactly 0 is penalised, but gets no direction. Batch normalisation in the critic mixes
        samples.

    Sources:
        - Gulrajani et al. (2017), Improved Training of Wasserstein GANs, https://arxiv.org/abs/1704.00028
    """
    return penalty_weight * (length(flattened(input_gradients)) - norm_target).square()


@loss(title="R1 penalty", tasks=("generative",), aliases=("r1",), range=(0, None), scales=2)
def r1_penalty(
    input_gradients: Annotated[Tensor, Prediction("N ...")],
    *,
    penalty_weight: Annotated[float, Ge(0)] = 10.0,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Zero-centred penalty on a discriminator's slope at real samples, for local convergence.

    Formula:
        \tfrac{\gamma}{2} \lVert g_i \rVert_2^2

    Args:
        input_gradients: Gradient of the discriminator's score with respect to each real sample.
        penalty_weight: Weight of the penalty, \gamma.

    Use when:
        A GAN with a logistic loss oscillates around its equilibrium, as in the training of StyleGAN.

    Pitfalls:
        Meant for real samples; at generated ones it is called R2. The factor of one half is part of it. Codes
        that apply it every k steps multiply the weight by k. The norm is over a whole sample.

    Sources:
        - Mescheder et al. (2018), Which Training Methods for GANs Do Actually Converge?,
          https://arxiv.org/abs/1801.04406
    """
    return penalty_weight * flattened(input_gradients).square().sum(1) / 2
