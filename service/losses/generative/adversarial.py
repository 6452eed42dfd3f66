"""Losses of both sides of a generative adversarial network, from the raw scores of its discriminator."""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.spec import Prediction, Scales, Unreduced
from service.losses.surprise import softplus


@loss(
    title="Least squares GAN, discriminator",
    tasks=("generative",),
    aliases=("lsgan_d",),
    range=(0, None),
    scales=Scales(2, along=("real_target", "fake_target")),
)
def lsgan_discriminator(
    real_scores: Annotated[Tensor, Prediction("...")],
    fake_scores: Annotated[Tensor, Prediction("...")],
    *,
    real_target: float = 1.0,
    fake_target: float = 0.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Least squares discriminator: real scores are pulled to one number, fake scores to another.

    Formula:
        \tfrac{1}{2} (z_r - b)^2 + \tfrac{1}{2} (z_f - a)^2

    Args:
        real_scores: Raw scores of real samples, without a sigmoid.
        fake_scores: Raw scores of generated samples, without a sigmoid.
        real_target: The score b that real samples should get.
        fake_target: The score a that generated samples should get.

    Use when:
        GAN training is unstable or its gradients vanish: a sample that is far off always has a gradient.

    Pitfalls:
        The paper's factor of one half is kept; CycleGAN's code drops it, so its values are twice as large. A
        sigmoid in front of the scores would bring the vanishing gradients back.

    Sources:
        - Mao et al. (2017), Least Squares Generative Adversarial Networks, https://arxiv.org/abs/1611.04076
    """
    return ((real_scores - real_target).square() + (fake_scores - fake_target).square()) / 2


@loss(
    title="Least squares GAN, generator",
    tasks=("generative",),
    aliases=("lsgan_g",),
    work="fake_scores",
    range=(0, None),
    scales=Scales(2, along=("generator_target",)),
)
def lsgan_generator(
    fake_scores: Annotated[Tensor, Prediction("...")],
    *,
    generator_target: float = 1.0,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Least squares generator: fake scores are pulled to the score of real samples.

    Formula:
        \tfrac{1}{2} (z_f - c)^2

    Args:
        fake_scores: Raw scores of generated samples, without a sigmoid.
        generator_target: The score c that the generator wants for its samples.

    Use when:
        The discriminator is trained with `lsgan_discriminator`.

    Pitfalls:
        `generator_target` belongs to the discriminator's targets: usually its `real_target`, or for the
        Pearson divergence the middle between both. The paper's factor of one half is kept.

    Sources:
        - Mao et al. (2017), Least Squares Generative Adversarial Networks, https://arxiv.org/abs/1611.04076
    """
    return (fake_scores - generator_target).square() / 2


@loss(
    title="Wasserstein GAN, critic",
    tasks=("generative",),
    aliases=("wgan_critic", "wgan_d"),
    keywords=(
        "WGAN",
        "Wasserstein GAN",
        "critic",
    ),
    scales=1,
)
def wasserstein_critic(
    real_scores: Annotated[Tensor, Prediction("...")],
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Wasserstein critic: real scores up and fake scores down, without a bound.

    Formula:
        z_f - z_r

    Args:
        real_scores: Raw scores of real samples.
        fake_scores: Raw scores of generated samples.

    Use when:
        Training should follow a distance that is still informative where real and fake do not overlap.

    Pitfalls:
        To be minimised: papers often print what the critic maximises, the same with the other sign. It is
        unbounded below unless the critic is Lipschitz: add `gradient_penalty`.

    Sources:
        - Arjovsky et al. (2017), Wasserstein GAN, https://arxiv.org/abs/1701.07875
    """
    return fake_scores - real_scores


@loss(
    title="Wasserstein GAN, generator",
    tasks=("generative",),
    aliases=("wgan_g",),
    keywords=(
        "WGAN",
        "Wasserstein GAN",
    ),
    scales=1,
)
def wasserstein_generator(
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Wasserstein generator: raises the critic's score of generated samples.

    Formula:
        -z_f

    Args:
        fake_scores: Raw scores of generated samples.

    Use when:
        The critic is trained with `wasserstein_critic`.

    Pitfalls:
        Its value does not measure quality, as the critic's scores have no fixed origin: watch the critic's
        loss. It needs a critic that is trained close to its optimum at each step.

    Sources:
        - Arjovsky et al. (2017), Wasserstein GAN, https://arxiv.org/abs/1701.07875
    """
    return -fake_scores


@loss(
    title="GAN, discriminator",
    tasks=("generative",),
    aliases=("bce_gan_d", "minimax_d"),
    keywords=(
        "GAN",
        "image generation",
        "adversarial training",
    ),
    range=(0, None),
)
def gan_discriminator(
    real_scores: Annotated[Tensor, Prediction("...")],
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Binary cross entropy of the original GAN's discriminator, from logits.

    Formula:
        -\ln \sigma(z_r) - \ln (1 - \sigma(z_f))

    Args:
        real_scores: Raw scores of real samples, without a sigmoid.
        fake_scores: Raw scores of generated samples, without a sigmoid.

    Use when:
        A discriminator is trained as a classifier of real against generated samples.

    Pitfalls:
        Takes logits: the logarithm of a computed sigmoid is infinite where it saturates. Real and fake term
        are added, so a discriminator that knows nothing costs 2 ln 2, not ln 2. Once it wins, the generator
        learns little.

    Sources:
        - Goodfellow et al. (2014), Generative Adversarial Networks, https://arxiv.org/abs/1406.2661
    """
    return softplus(-real_scores) + softplus(fake_scores)


@loss(
    title="GAN, saturating generator",
    tasks=("generative",),
    aliases=("gan_g_saturating",),
    work="fake_scores",
    range=(None, 0),
)
def gan_generator_minimax(
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Generator of the original minimax game, whose gradient fades as the discriminator wins.

    Formula:
        \ln (1 - \sigma(z_f))

    Args:
        fake_scores: Raw scores of generated samples, without a sigmoid.

    Use when:
        The minimax game itself is studied. To train, take `gan_generator_nonsaturating`.

    Pitfalls:
        Saturates: where the discriminator is sure that a sample is fake, which is how training begins, the
        gradient is almost 0. The value is negative and unbounded below.

    Sources:
        - Goodfellow et al. (2014), Generative Adversarial Networks, https://arxiv.org/abs/1406.2661
    """
    return -softplus(fake_scores)


@loss(
    title="GAN, generator",
    tasks=("generative",),
    aliases=("gan_generator", "gan_g"),
    keywords=(
        "GAN",
        "image generation",
        "adversarial training",
    ),
    work="fake_scores",
    range=(0, None),
)
def gan_generator_nonsaturating(
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Generator of the original GAN in the form for training: strong gradient where it loses.

    Formula:
        -\ln \sigma(z_f)

    Args:
        fake_scores: Raw scores of generated samples, without a sigmoid.

    Use when:
        The discriminator is trained with `gan_discriminator`, with or without a penalty.

    Pitfalls:
        Not the negative of the discriminator's loss, so the two do not sum to 0. It rewards samples that fool
        the discriminator, not variety: modes can be lost.

    Sources:
        - Goodfellow et al. (2014), Generative Adversarial Networks, https://arxiv.org/abs/1406.2661
    """
    return softplus(-fake_scores)


@loss(
    title="Hinge GAN, discriminator",
    tasks=("generative",),
    aliases=("hinge_d",),
    keywords=(
        "GAN",
        "BigGAN",
        "adversarial training",
        "image generation",
    ),
    range=(0, None),
)
def hinge_gan_discriminator(
    real_scores: Annotated[Tensor, Prediction("...")],
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Hinge discriminator: real scores above 1 and fake scores below -1 cost nothing.

    Formula:
        \max(0, 1 - z_r) + \max(0, 1 + z_f)

    Args:
        real_scores: Raw scores of real samples.
        fake_scores: Raw scores of generated samples.

    Use when:
        Large image GANs with spectral normalisation, as SNGAN and BigGAN are.

    Pitfalls:
        Samples beyond the margin have no gradient, so a discriminator that separates all of them stops
        learning. Real and fake term are added: some codes halve them.

    Sources:
        - Lim & Ye (2017), Geometric GAN, https://arxiv.org/abs/1705.02894
    """
    return F.relu(1 - real_scores) + F.relu(1 + fake_scores)


@loss(
    title="Hinge GAN, generator",
    tasks=("generative",),
    aliases=("hinge_g",),
    keywords=(
        "GAN",
        "BigGAN",
        "adversarial training",
        "image generation",
    ),
    scales=1,
)
def hinge_gan_generator(
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Generator against a hinge discriminator: linear in the score, without a hinge.

    Formula:
        -z_f

    Args:
        fake_scores: Raw scores of generated samples.

    Use when:
        The discriminator is trained with `hinge_gan_discriminator`.

    Pitfalls:
        Only the discriminator is hinged: a hinge here would take the gradient from samples that already fool
        it. The value is unbounded, and comparable between steps only as far as the discriminator stands
        still.

    Sources:
        - Lim & Ye (2017), Geometric GAN, https://arxiv.org/abs/1705.02894
    """
    return -fake_scores


@loss(
    title="Relativistic average GAN, discriminator",
    tasks=("generative",),
    aliases=("ragan_d",),
    compares_samples=True,
    range=(0, None),
)
def relativistic_discriminator(
    real_scores: Annotated[Tensor, Prediction("...")],
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Relativistic discriminator: real samples should score above the average fake, and the reverse.

    Formula:
        -\ln \sigma(z_r - \bar z_f) - \ln (1 - \sigma(z_f - \bar z_r))

    Args:
        real_scores: Raw scores of real samples, without a sigmoid.
        fake_scores: Raw scores of generated samples, without a sigmoid.

    Use when:
        The discriminator should compare both kinds of samples instead of judging each alone, as in ESRGAN.

    Pitfalls:
        The averages run over all scores of a call, so the loss of a sample depends on the others, and the
        gradient flows through the averages too. Small batches make them noisy.

    Sources:
        - Jolicoeur-Martineau (2018), The Relativistic Discriminator: a Key Element Missing from Standard GAN,
          https://arxiv.org/abs/1807.00734
    """
    return softplus(fake_scores.mean() - real_scores) + softplus(fake_scores - real_scores.mean())


@loss(
    title="Relativistic average GAN, generator",
    tasks=("generative",),
    aliases=("ragan_g",),
    compares_samples=True,
    range=(0, None),
)
def relativistic_generator(
    real_scores: Annotated[Tensor, Prediction("...")],
    fake_scores: Annotated[Tensor, Prediction("...")],
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Relativistic generator: fake samples should score above the average real one.

    Formula:
        -\ln (1 - \sigma(z_r - \bar z_f)) - \ln \sigma(z_f - \bar z_r)

    Args:
        real_scores: Raw scores of real samples, without a sigmoid.
        fake_scores: Raw scores of generated samples, without a sigmoid.

    Use when:
        The discriminator is trained with `relativistic_discriminator`.

    Pitfalls:
        Unlike other generator losses it needs the real scores too. The averages run over all scores of a
        call, and the gradient flows through them.

    Sources:
        - Jolicoeur-Martineau (2018), The Relativistic Discriminator: a Key Element Missing from Standard GAN,
          https://arxiv.org/abs/1807.00734
    """
    return softplus(real_scores - fake_scores.mean()) + softplus(real_scores.mean() - fake_scores)
