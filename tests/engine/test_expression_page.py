"""The losses in docs/expressions.md are those of the catalogue, and the page names every function."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.spec import Params
from service.engine.expression import FUNCTIONS, parse_expression
from service.losses import CATALOGUE

PAGE = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "Focal": {"z": (6,)},
    "InfoNCE": {"a": (4, 5), "p": (4, 5)},
    "Focal Tversky": {"z": (2, 3, 7)},
    "Cross entropy with label smoothing": {"z": (4, 3)},
    "R-Drop": {"z": (4, 3), "w": (4, 3)},
}
"""Shapes of the inputs of sections; others are vectors of 50."""
CLASSES = {"Focal Tversky": (2, 7), "Cross entropy with label smoothing": (4,), "R-Drop": (4,)}
"""Shapes of `y` where it is a class."""


def test_the_page_has_ten_losses() -> None:
    assert len(SECTIONS) == 10


@pytest.mark.parametrize("title", SECTIONS)
def test_a_loss_as_an_expression_equals_the_catalogues(title: str) -> None:
    [source], [terms] = (
        re.findall(rf"```{kind}\n(.*?)```", SECTIONS[title], re.DOTALL) for kind in ("python", "json")
    )
    given = _given(title, parse_expression(source, 4096).names)
    found = evaluated(source, given)
    expected = sum((_term(term, given) for term in json.loads(terms)), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = [tensor for tensor in given.values() if tensor.requires_grad]
    for slope, reference in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(slope, reference, rtol=1e-12, atol=1e-12)
        assert reference.count_nonzero()


def _given(title: str, names: frozenset[str]) -> dict[str, Tensor]:
    """Return float64 tensors for the names of a section, errors of all sizes among them."""
    random = torch.Generator().manual_seed(1)
    given: dict[str, Tensor] = {}
    for name in sorted(names):
        shape = SHAPES.get(title, {}).get(name, (50,))
        if name == "y" and title in CLASSES:
            given[name] = torch.randint(0, 3, CLASSES[title], generator=random)
        elif name == "y" and title == "Focal":
            given[name] = torch.tensor([0, 1, 1, 0, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
        else:
            scale = 10 if title == "Wing" else 1
            drawn = scale * torch.randn(shape, dtype=torch.float64, generator=random)
            given[name] = (-drawn.abs() if title == "DPO" else drawn).requires_grad_()
    return given


def evaluated(source: str, given: Mapping[str, Tensor]) -> Tensor:
    expression = parse_expression(source, 4096)
    traced = expression.trace(given, 2**27)
    found = expression.checked(given)
    assert (found.shape, found.dtype) == traced[:2]
    return found


def _term(term: Mapping[str, Any], given: Mapping[str, Tensor]) -> Tensor:
    """Return the weighted mean of a term of the catalogue."""
    loss = CATALOGUE[term["loss"]]
    params: Params = {**loss.defaults, **term.get("params", {})}
    inputs = {
        name: given[source] if source in given else evaluated(source, given)
        for name, source in term["inputs"].items()
    }
    found = loss.terms(inputs, params)
    mean = found.loss.mean() if found.divisor is None else found.loss.sum() / found.divisor.sum()
    return term.get("weight", 1) * mean


def test_the_page_names_every_function() -> None:
    table = PAGE.split("## Functions")[1].split("\n## ")[0]
    assert {name for name in FUNCTIONS if f"`{name}(" not in table and f"`{name}`" not in table} == set()


def test_the_examples_of_the_page_are_read() -> None:
    grammar = PAGE.split("## Grammar")[1].split("\n## ")[0]
    for source in (
        "(x > 0) & (x < 1)",
        "x[:, 1:]",
        "x[..., -1]",
        "x[:, None]",
        "x[::2]",
        "sum(x, dim=1, keepdim=True)",
    ):
        assert f"`{source}`" in grammar
        parse_expression(source, 4096)
    guarded = "where(x > 0, sqrt(where(x > 0, x, 1)), 0)"
    assert guarded in PAGE
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    [slope] = torch.autograd.grad(evaluated(guarded, {"x": x}).sum(), x)
    assert slope.tolist() == [0, 0.25]
    [slope] = torch.autograd.grad(evaluated("where(x > 0, sqrt(x), 0)", {"x": x}).sum(), x)
    assert slope[0].isnan()
