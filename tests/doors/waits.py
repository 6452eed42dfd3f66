"""Losses that run for as long as a test wants, to observe other requests meanwhile."""

import threading
from types import ModuleType
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.registry import Catalogue
from service.catalogue.rounds import rounds
from service.catalogue.spec import Prediction, Unreduced
from service.losses import CATALOGUE

QUICK, SLOW = 100_000, 10_000_000
"""Units of work of a call in the quick lane, and of one in the slow."""
BEGUN, ENDED = threading.Semaphore(0), threading.Semaphore(0)
GO_ON = threading.Event()


@loss(title="Stubborn", tasks=("regression",), work="units")
def stubborn(
    predictions: Annotated[Tensor, Prediction("N")], *, units: Annotated[int, Ge(1)] = SLOW
) -> Annotated[Tensor, Unreduced("N")]:
    """Runs until the test lets it end, even if nobody waits.

    Formula:
        p

    Args:
        predictions: Anything.
        units: Work that is declared.

    Use when:
        Something must not end.

    Pitfalls:
        It does not end.

    Sources:
        - None.
    """
    BEGUN.release()
    assert GO_ON.wait(60)
    ENDED.release()
    return predictions * 1


@loss(title="Endless", tasks=("regression",), work="units")
def endless(
    predictions: Annotated[Tensor, Prediction("N")], *, units: Annotated[int, Ge(1)] = SLOW
) -> Annotated[Tensor, Unreduced("N")]:
    """Goes on for as long as somebody waits.

    Formula:
        p

    Args:
        predictions: Anything.
        units: Work that is declared.

    Use when:
        Something must be seen to end.

    Pitfalls:
        It may not end.

    Sources:
        - None.
    """
    BEGUN.release()
    try:
        for _ in rounds(1 << 60):
            predictions = predictions * 1
    finally:
        ENDED.release()
    return predictions


def catalogue() -> Catalogue:
    """Return a catalogue of these, and of one that is quick."""
    family = ModuleType("waits")
    vars(family).update(stubborn=stubborn, endless=endless, mse=CATALOGUE["mse"])
    return Catalogue(family)
