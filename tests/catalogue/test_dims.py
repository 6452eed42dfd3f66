"""Patterns of dimensions: matching, sizes, and their format in messages."""

from typing import Any

import pytest

from service.catalogue.dims import expand, match, match_empty, show_sizes


@pytest.mark.parametrize(
    ("dims", "shape", "sizes", "expected"),
    [
        ("", [], {}, {}),
        ("...", [], {}, {"...": ()}),
        ("N ...", [2], {}, {"N": (2,), "...": ()}),
        ("N ... C", [2, 8, 8, 3], {}, {"N": (2,), "...": (8, 8), "C": (3,)}),
        ("N N", [2, 2], {}, {"N": (2,)}),
        ("N N", [2, 3], {}, None),
        ("N 4", [2, 4], {}, {"N": (2,)}),
        ("N 4", [2, 3], {}, None),
        ("N", [2, 3], {}, None),
        ("N C", [2], {}, None),
        ("N ...", [2, 8], {"...": (8,)}, {"N": (2,), "...": (8,)}),
        ("N ...", [2, 8], {"...": ()}, None),
    ],
)
def test_matching(dims: str, shape: list[int], sizes: Any, expected: Any) -> None:
    assert match(dims, shape, sizes) == expected


def test_matching_leaves_the_known_sizes_alone() -> None:
    sizes = {"N": (2,)}
    match("N C", [2, 3], sizes)
    assert sizes == {"N": (2,)}


@pytest.mark.parametrize(
    ("dims", "sizes", "least", "shape"),
    [
        ("N", {}, {}, (0,)),
        ("N C ...", {}, {}, (0, 1)),
        ("N C", {}, {"C": 2}, (0, 2)),
        ("...", {}, {}, (0,)),
        ("N D", {"N": (0,), "D": (3,)}, {}, (0, 3)),
        ("N D", {"N": (2,), "D": (3,)}, {}, None),
        ("", {}, {}, None),
    ],
)
def test_an_empty_array_of_any_rank(dims: str, sizes: Any, least: Any, shape: Any) -> None:
    found = match_empty(dims, sizes, least)
    assert (found and expand(dims, found)) == shape


def test_sizes_in_words() -> None:
    assert show_sizes({}) == ""
    assert show_sizes({"N": (2,), "...": (8, 8)}) == " (N = 2, ... = 8 x 8)"
    assert show_sizes({"...": ()}) == " (a single number)"
