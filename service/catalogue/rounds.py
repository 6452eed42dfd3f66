"""Loops that may take long end soon after nobody waits for what they compute.

A loop over iterations or time steps is written ``for step in rounds(count)``, and lets what it carries from round to
round pass through `lasting`, so that its gradient ends too. Whoever runs the loss says with `ended_by` how it can be
seen that nobody waits any more.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

Question = Callable[[], bool]
_abandoned: ContextVar[Question | None] = ContextVar("abandoned", default=None)


class Abandoned(Exception):
    """Nobody waits any more for what is computed."""


@contextmanager
def ended_by(abandoned: Question) -> Generator[None]:
    """Let what the body of a ``with`` computes end once ``abandoned`` says so."""
    token = _abandoned.set(abandoned)
    try:
        yield
    finally:
        _abandoned.reset(token)


def go_on() -> None:
    """Do nothing while somebody waits.

    Raises:
        Abandoned: nobody does.
    """
    if (abandoned := _abandoned.get()) and abandoned():
        raise Abandoned


def rounds(*bounds: int) -> Iterator[int]:
    """Yield the numbers of ``range(*bounds)``.

    >>> [*rounds(1, 4)]
    [1, 2, 3]

    Raises:
        Abandoned: nobody waits any more.
    """
    steps = range(*bounds)
    return iter(steps) if _abandoned.get() is None else _watched(steps)


def _watched(steps: range) -> Iterator[int]:
    """Yield numbers while somebody waits."""
    for step in steps:
        go_on()
        yield step


def lasting(state: Tensor) -> Tensor:
    """Return what a loop carries on; to differentiate it raises `Abandoned` too, where nobody waits any more."""
    abandoned = _abandoned.get()
    if abandoned and state.requires_grad:

        def look(gradient: Tensor) -> None:
            if abandoned():
                raise Abandoned

        # the gradient of many rounds is one call of autograd, which nothing else can end
        hooked: Any = state
        hooked.register_hook(look)
    return state
