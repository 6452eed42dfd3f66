"""Formulas written as their definitions have them, in so many digits that nothing cancels or overflows."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Number = Any
"""A number of mpmath, which has no types."""


def elementwise(formula: Callable[..., Any], *arrays: Array) -> Array:
    """Apply a formula of mpmath numbers to each element of arrays, in 90 digits."""

    def one(*numbers: float) -> float:
        with mpmath.workdps(90):
            return float(formula(*map(mpmath.mpf, numbers)))

    return np.vectorize(one, otypes=[np.float64])(*arrays)
