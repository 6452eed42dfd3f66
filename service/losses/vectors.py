"""Lengths of vectors and angles between them, whatever their size: of 1e-24 as well as of 1e20."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.losses.stacking import Stackable

_VECTOR_NORM: Callable[..., Tensor] = vars(torch.linalg)["vector_norm"]
"""Torch's own, which its type stubs do not know."""


def unit(vectors: Tensor) -> Tensor:
    """Divide each vector by its length; the zero vector stays unchanged and has no gradient."""
    # in float64, whose squares neither overflow nor vanish for any float32
    wide = vectors.double()
    return (wide / _or_infinity(_norms(wide))).to(vectors)


def cosine(vectors: Tensor, partners: Tensor) -> Tensor:
    """Return the cosine of the angle between each vector and its partner."""
    return 1 - one_minus_cosine(vectors, partners)


def one_minus_cosine(vectors: Tensor, partners: Tensor) -> Tensor:
    """Return one minus the cosine of the angle between each vector and its partner.

    A zero vector has no direction: it is at distance 1 from everything, and has no slope.
    """
    return _OneMinusCosine.apply(vectors, partners)[0]


def length(vectors: Tensor) -> Tensor:
    """Return the Euclidean norm along the last axis, with slope 0 at the zero vector."""
    return _Length.apply(vectors)


class _OneMinusCosine(Stackable):
    """Half the squared chord of two directions: 1 - cos itself has no digits left of small angles.

    The chord is taken in float64: in float32 that of vectors 1e-6 apart is one tenth rounding error.
    """

    @staticmethod
    def forward(vectors: Tensor, partners: Tensor) -> tuple[Tensor, ...]:
        norms, partner_norms = (_or_infinity(_norms(each)) for each in (vectors, partners))
        chord = (vectors / norms).sub_(partners / partner_norms)
        missing = norms.isinf().to(chord) + partner_norms.isinf()
        distance = (_norms(chord).square_() + missing) / 2
        found = distance.clamp(max=2)
        return found.squeeze(-1).to(vectors), chord.to(vectors), found, norms, partner_norms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        vectors, partners, chord, distance, norms, partner_norms = ctx.saved_tensors
        of_vectors, of_partners = ctx.needs_input_grad
        each = upstream[0].unsqueeze(-1)

        def slope(of: Tensor, norms: Tensor, sign: int) -> Tensor:
            turned = torch.addcmul(chord, of, (distance / norms).to(of), value=-sign)
            return turned.mul_((sign * each / norms).to(of))

        return (
            slope(vectors, norms, 1) if of_vectors else None,
            slope(partners, partner_norms, -1) if of_partners else None,
        )


class _Length(Stackable):
    """Euclidean norms by squares in float64, which neither overflow nor vanish for any float32."""

    @staticmethod
    def forward(vectors: Tensor) -> Tensor:
        return _norms(vectors).squeeze(-1).to(vectors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        vectors, norms = ctx.saved_tensors
        return vectors * (upstream[0] / _or_infinity(norms)).unsqueeze(-1)


def _norms(vectors: Tensor) -> Tensor:
    """Return the lengths along the last axis in float64, that axis kept."""
    return _VECTOR_NORM(vectors, dim=-1, keepdim=True, dtype=torch.float64)


def _or_infinity(norms: Tensor) -> Tensor:
    """Return norms to divide by: infinity in place of 0, so that nothing comes of the zero vector."""
    return torch.where(norms > 0, norms, torch.inf)
