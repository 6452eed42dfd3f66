"""Let long loops stop soon after nobody waits for their result.

A loop over iterations or time steps is written ``for step in rounds(count)``, and passes the state that it carries from
round to round through `lasting`, so that its gradient can stop too. The caller of the loss sets with `ended_by` how to
check whether anybody is waiting.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

Question = Callable[[], bool]
_abandoned: ContextVar[Question | None] = ContextVar("abandoned", default=None)


class Abandoned(Exception):
    """Nobody waits for the result any longer."""


@contextmanager
def ended_by(abandoned: Question) -> Generator[None]:
    """Let computations in the body of a ``with`` stop once ``abandoned`` returns true."""
    token = _abandoned.set(abandoned)
    try:
        yield
    finally:
        _abandoned.reset(token)


def go_on() -> None:
    """Do nothing while somebody is waiting.

    Raises:
        Abandoned: nobody is.
    """
    if (abandoned := _abandoned.get()) and abandoned():
        raise Abandoned


def rounds(*bounds: int) -> Iterator[int]:
    """Yield the numbers of ``range(*bounds)``.

    >>> [*rounds(1, 4)]
    [1, 2, 3]

    Raises:
        Abandoned: nobody waits any longer.
    """
    steps = range(*bounds)
    return iter(steps) if _abandoned.get() is None else _watched(steps)


def _watched(steps: range) -> Iterator[int]:
    """Yield numbers while somebody is waiting."""
    for step in steps:
        go_on()
        yield step


def lasting(state: Tensor) -> Tensor:
    """Return the state of a loop; differentiating it raises `Abandoned` too, once nobody waits any longer."""
    abandoned = _abandoned.get()
    if abandoned and state.requires_grad:

        def look(gradient: Tensor) -> None:
            if abandoned():
                raise Abandoned

        # the gradient of many rounds is a single call of autograd, which nothing else can stop
        hooked: Any = state
        hooked.register_hook(look)
    return state
