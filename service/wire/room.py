"""What does not fit in memory while it is read or written is too large, whoever says so."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from service.engine.memory import is_exhausted
from service.problems import TooLarge

P = ParamSpec("P")
R = TypeVar("R")


def roomy(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function tell of memory that did not suffice as of the request's size, by `TooLarge`."""

    @wraps(function)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_exhausted(error):
                raise
        # past the handler nothing holds what was read
        raise TooLarge("Expected a request that fits the memory that is free; got one that takes more.")

    return within
