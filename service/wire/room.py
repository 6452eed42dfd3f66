"""A request that does not fit into memory while it is read or written is a `TooLarge`, whichever library fails."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from service.engine.memory import is_exhausted
from service.problems import TooLarge

P = ParamSpec("P")
R = TypeVar("R")


def roomy(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it raises `TooLarge` when memory runs out."""

    @wraps(function)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_exhausted(error):
                raise
        # past the handler, nothing references the partial result
        raise TooLarge("Expected a request that fits into free memory; got one that needs more.")

    return within
