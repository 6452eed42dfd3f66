"""Oracles: a reference formula for one loss, with the edges at which they are compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Reference = Callable[..., Any]
"""Takes the inputs as float64, int64 or bool arrays and the params by name (absent optional inputs are None).

Returns the unreduced loss, or a mapping with ``loss`` and, where the loss has them, ``divisor``,
``mean_terms`` and diagnostics by name.
"""


Draw = tuple[Mapping[str, int | tuple[int, ...]], Mapping[str, Any]]
"""Sizes and params, both on top of the defaults."""


@dataclass(frozen=True)
class Edge:
    """A call at the edge of a domain: inputs, params, and the gradients of ``sum`` where they are decided.

    A gradient is given as nested lists; a NaN among them is not compared.
    """

    inputs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    gradients: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Oracle:
    """A loss's reference formula with its edges, and the sizes and params at which random calls are drawn.

    ``tolerance`` is relative and absolute; 1e-9 unless the reference itself is less exact. ``grows`` says
    that at scores of 1e4 the exact value is beyond float32.
    """

    loss: str
    reference: Reference
    edges: Sequence[Edge]
    draws: Sequence[Draw]
    tolerance: float
    grows: bool


class Oracles:
    """The oracles of one module."""

    def __init__(self) -> None:
        self.all: list[Oracle] = []

    def of(
        self,
        loss: str,
        *,
        edges: Sequence[Edge] = (),
        draws: Sequence[Draw] = (),
        tolerance: float = 1e-9,
        grows: bool = False,
    ) -> Callable[[Reference], Reference]:
        """Declare a function as the oracle of a loss.

        Random calls are drawn at the default, at every literal and boolean alternative of a param, and at
        ``draws``: pairs of sizes such as ``{"N": 7, "...": (5,)}`` and params.
        """

        def declare(reference: Reference) -> Reference:
            self.all.append(Oracle(loss, reference, edges, draws, tolerance, grows))
            return reference

        return declare
