"""Finishes that many metrics share, and the helpers for rows."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from service.catalogue.metric import Each, Finish, Number, Params, Undefined, Value, Weights
from service.catalogue.table import Array, Table


def column(tensor: Tensor) -> Array:
    """Return a tensor of rows as a column on the host."""
    return tensor.detach().cpu().contiguous().numpy()


def ratio(numerator: float, denominator: float, reason: str) -> Number:
    """Return a quotient, undefined for this reason if the denominator is 0."""
    return float(numerator / denominator) if denominator else Undefined(reason)


def mean_of(name: str, reason: str = "there are no samples", infinite: str = "a value is infinite") -> Finish:
    """Return the finish of the weighted mean of a column ``[N]``; what is not finite in it makes it undefined, unless its weight is 0."""

    def finish(rows: Table, params: Params) -> Callable[[Weights], Value]:
        valid, (values,) = finite(rows[name].astype(np.float64))

        def run(weights: Weights) -> Value:
            if not valid(weights):
                return Undefined(infinite)
            return ratio(float((weights * values).sum()), float(weights.sum()), reason)

        return run

    return finish


def finite(*columns: Array) -> tuple[Callable[[Weights], bool], list[Array]]:
    """Return whether the rows that count are finite in all columns, as a function of weights, and the columns.

    In these, rows that are not finite are 0, so that a weight of 0 leaves them out.
    """
    bad = np.flatnonzero(~np.logical_and.reduce([np.isfinite(one) for one in columns]))
    cleared = (
        [np.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0) for one in columns] if len(bad) else columns
    )
    return lambda weights: not weights[bad].any(), list(cleared)


def each_of(name: str) -> Each:
    """Return a column ``[N]`` as the value of each row."""
    return lambda rows, params: rows[name].astype(np.float64)


def mean_defined(values: list[Number], reason: str) -> Number:
    """Return the mean of the defined numbers, undefined for this reason if there are none."""
    defined = [value for value in values if not isinstance(value, Undefined)]
    return float(np.mean(defined)) if defined else Undefined(reason)
