"""Losses of autoencoders with a latent code: variational ones, and those that quantise it."""

from math import log, pi
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Gt
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Between, Real
from service.catalogue.spec import Bounds, Diagnostic, Form, Params, Prediction, Target, Unreduced, given
from service.losses.exponentials import convexity
from service.losses.generative.samples import flattened
from service.losses.surprise import binary_surprise


@loss(
    title="KL divergence to a standard normal",
    tasks=("generative",),
    aliases=("kl_standard_normal",),
    work="4 means",
    range=(0, None),
)
def vae_kl(
    means: Annotated[Tensor, Prediction("N ...")],
    log_variances: Annotated[Tensor, Prediction("N ...")],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Divergence of a diagonal Gaussian posterior from a standard normal prior.

    Formula:
        \tfrac{1}{2} \sum_d \mu_d^2 + e^{s_d} - s_d - 1

    Args:
        means: Means of each sample's posterior.
        log_variances: Logarithms of its variances, s.

    Use when:
        A variational autoencoder weighs reconstruction and prior itself; else `vae_elbo` has both.

    Pitfalls:
        Takes log-variances; a log-standard-deviation is half of one. It is summed over the latent dimensions:
        to average over them instead is to divide beta by their number. Early in training it can fall to 0 and
        stay there, which means that the latent code is unused.

    Sources:
        - Kingma & Welling (2014), Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
    """
    return flattened(means.square() + convexity(log_variances)).sum(1) / 2


def _least_bound(params: Params) -> Bounds:
    """Return 0 as the least where a perfect reconstruction costs nothing or more: its density may exceed 1."""
    dense = params["likelihood"] == "gaussian" and 2 * pi * params["observation_variance"] < 1
    return None if dense else 0, None


class NegativeBound(NamedTuple):
    """The negative evidence lower bound of each sample, and its two parts."""

    loss: Annotated[Tensor, Unreduced("N")]
    reconstruction: Annotated[Tensor, Diagnostic("N")]
    kl: Annotated[Tensor, Diagnostic("N")]


@loss(
    title="Negative evidence lower bound",
    tasks=("generative",),
    aliases=("negative_elbo", "vae", "beta_vae"),
    work="4 means",
    range=_least_bound,
)
def vae_elbo(
    predictions: Annotated[Tensor, Prediction("N ...")],
    targets: Annotated[
        Tensor,
        Target(
            [
                Form("N ...", Between(0, 1), given(likelihood="bernoulli")),
                Form("N ...", Real(), given(likelihood="gaussian")),
            ]
        ),
    ],
    means: Annotated[Tensor, Prediction("N Z")],
    log_variances: Annotated[Tensor, Prediction("N Z")],
    *,
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    beta: Annotated[float, Ge(0)] = 1.0,
    observation_variance: Annotated[float, Gt(0)] = 1.0,
) -> NegativeBound:
    r"""Loss of a variational autoencoder: reconstruction plus divergence from the prior.

    Formula:
        -\ln p(y \mid \hat y) + \beta\, \tfrac{1}{2} \sum_d \mu_d^2 + e^{s_d} - s_d - 1

    Args:
        predictions: Output of the decoder: logits of a Bernoulli likelihood, means of a Gaussian one.
        targets: Samples to reconstruct, from 0 to 1 under a Bernoulli likelihood.
        means: Means of the posterior of each sample's latent code.
        log_variances: Logarithms of its variances, s.
        likelihood: Distribution of a sample's elements around the decoder's output.
        beta: Weight of the divergence: above 1 for disentangled codes, below for sharper reconstructions.
        observation_variance: Variance of the Gaussian likelihood; a Bernoulli one has none.

    Use when:
        Training a variational autoencoder or a beta-VAE.

    Pitfalls:
        Reconstruction is summed over the elements of a sample: averaging over pixels makes beta that many
        times as strong. The Gaussian's constant is included, so the value is a bound in nats and can be
        negative. Under a Gaussian likelihood halving `observation_variance` acts like halving beta. Decoders
        for the Bernoulli likelihood end without a sigmoid.

    Sources:
        - Kingma & Welling (2014), Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
        - Higgins et al. (2017), beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
          Framework, https://openreview.net/forum?id=Sy2fzU9gl
    """
    if likelihood == "bernoulli":
        surprise = binary_surprise(predictions, targets, 1 - targets)
    else:
        squared = (targets - predictions).square() / observation_variance
        surprise = (squared + log(2 * pi * observation_variance)) / 2
    reconstruction, kl = flattened(surprise).sum(1), vae_kl(means, log_variances)
    return NegativeBound(reconstruction + beta * kl, reconstruction, kl)


@loss(
    title="Vector quantisation commitment",
    tasks=("generative",),
    aliases=("vq_vae",),
    exact_gradient=False,
    range=(0, None),
    scales=2,
)
def vq_commitment(
    embeddings: Annotated[Tensor, Prediction("...")],
    codes: Annotated[Tensor, Prediction("...")],
    *,
    beta: Annotated[float, Ge(0)] = 0.25,
) -> Annotated[Tensor, Unreduced("...")]:
    r"""Pulls the codes of a codebook to the encoder's output, and the encoder to its codes.

    Formula:
        (\operatorname{sg}[e] - c)^2 + \beta\, (e - \operatorname{sg}[c])^2

    Args:
        embeddings: Output of the encoder, e.
        codes: Nearest code of each embedding, c, already looked up.
        beta: Weight of the second term, the commitment of the encoder.

    Use when:
        Training a VQ-VAE or another model with a codebook, in addition to its reconstruction loss.

    Pitfalls:
        The value holds both terms, but sg stops gradients: codes learn from the first term only, the encoder
        from the second. There is no straight-through estimator here; copy the decoder's gradient past the
        lookup yourself. With a codebook of moving averages only the second term is wanted.

    Sources:
        - van den Oord et al. (2017), Neural Discrete Representation Learning, https://arxiv.org/abs/1711.00937
    """
    of_codes = (embeddings.detach() - codes).square()
    of_encoder = (embeddings - codes.detach()).square()
    return of_codes + beta * of_encoder
