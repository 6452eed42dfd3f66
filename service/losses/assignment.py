"""One-to-one assignment of least cost, on the host: its result is indices, which the gradient does not see."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from service.catalogue.refusal import refusal
from service.catalogue.rounds import rounds
from service.losses.stacking import Stackable


def assigned(costs: Mapping[str, Tensor], counts: Tensor, objects: int) -> Tensor:
    """Return the query ``[O]`` of each true object, -1 where there are more objects than queries.

    ``costs [O, Q]`` of every query to every object are added up; they take no part in a gradient, and each has the name
    of the input that is to blame where it is not finite. Objects lie scene by scene, ``counts [S]`` of them in each, and
    queries are given to objects of one scene at most once; each layer has ``objects`` of them. Ties fall as
    `scipy.optimize.linear_sum_assignment` breaks them, with a row a query.

    Raises:
        Invalid: a cost is not finite.
    """
    return _Assignment.apply(tuple(costs), objects, counts, *costs.values())


class _Assignment(Stackable):
    """The assignments of all calls, one scene after another."""

    @staticmethod
    def forward(names: tuple[str, ...], objects: int, counts: Tensor, *parts: Tensor) -> Tensor:
        total = sum(parts[1:], start=parts[0])
        _refuse_nonfinite(names, objects, parts, total)
        # a leading axis, so that there is one to flatten
        calls, scenes = total[None].flatten(0, -3).cpu().numpy(), counts[None].flatten(0, -2).cpu().numpy()
        found = [_of_scenes(each, some) for each, some in zip(calls, scenes, strict=True)]
        return torch.as_tensor(np.stack(found)).reshape(total.shape[:-1]).to(counts.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)


def _of_scenes(costs: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the query of each object of a call, -1 for those that are left over."""
    found = np.full(len(costs), -1, dtype=np.int64)
    start = 0
    for scene in rounds(len(counts)):
        if counts[scene]:
            queries, objects = linear_sum_assignment(costs[start : start + counts[scene]].T)
            found[start + objects] = queries
            start += counts[scene]
    return found


def _refuse_nonfinite(names: tuple[str, ...], objects: int, parts: tuple[Tensor, ...], total: Tensor) -> None:
    """Refuse a cost that is not finite, by the first of its parts that is not, else by the last."""
    if bool(total.isfinite().all()):
        return
    name, part = next(
        ((name, part) for name, part in zip(names, parts, strict=True) if not bool(part.isfinite().all())),
        (names[-1], total),
    )
    place, query = (~part.isfinite()).nonzero()[0, -2:].cpu().numpy()
    number = part[~part.isfinite()][0].item()
    expected = "numbers for which the cost of every match is finite"
    layer = f" in layer {place // objects}" if part.shape[-2] > objects else ""
    raise refusal(name, expected, f"{number} for query {query} and true object {place % objects}{layer}")
