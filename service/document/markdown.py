"""Pieces of Markdown that the pages of losses and metrics share."""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.catalogue.declaration import REQUIRED, AnyDeclaration, Param
from service.catalogue.dims import show_dims
from service.catalogue.spec import Form
from service.wire.json import show
from service.wire.params import wanted

MARK = "<!-- Written by `lossd docs` from the declarations. -->"
"""The first line of every page. A page that has it is removed when its family is gone."""


def form_lines(forms: Iterable[Form], *, values: bool = False) -> str:
    """Return the possible shapes of a tensor, a line each, with the values if asked for."""
    lines = [
        (f"{form.domain.kind} " if values else "")
        + f"`{show_dims(form.dims)}`"
        + (f" where {form.when.text}" if form.when.text else "")
        + (f": {form.describe()}" if values else "")
        for form in forms
    ]
    return "<br>".join(dict.fromkeys(lines))


def taken_by(param: Param) -> tuple[str, str]:
    """Return the type of a param, and its default."""
    listed = param.values and f" (`{show_dims(param.values.dims)}`, {param.values.domain.describe()})"
    default = "required" if param.default is REQUIRED else f"`{show(param.default)}`"
    return wanted(param.annotation) + (listed or ""), default


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table, escaping bars in cells."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def heading(name: str) -> str:
    """Return a family's or task's name as a heading; three letters are an abbreviation."""
    return name.upper() if len(name) <= 3 else name.replace("_", " ").capitalize()


def github_formula(formula: str) -> str:
    """Return a formula as GitHub renders it, which has no ``operatorname``."""
    return re.sub(r"\\operatorname\*?\{(\w+)\}", r"\\mathop{\\mathrm{\1}}", formula)


def source_list(sources: Iterable[str]) -> str:
    """Return sources as a list, with links where they end in an address."""
    return "\n".join("- " + re.sub(r"^(.*), (https?://\S+)$", r"[\1](<\2>)", source) for source in sources)


def family_of(declared: AnyDeclaration) -> str:
    """Return the name of a declaration's family: its module or package below ``service.losses`` or ``service.metrics``."""
    return declared.function.__module__.split(".")[2]


def about_family(declared: AnyDeclaration) -> str:
    """Return the docstring of a family's module or package."""
    package = ".".join(declared.function.__module__.split(".")[:3])
    return (sys.modules[package].__doc__ or "").partition("\n")[0]


def write_pages(pages: Mapping[str, str], directory: Path) -> None:
    """Write pages into a directory by their names, and remove those of families that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.md"):
        if path.read_text(encoding="utf-8").startswith(MARK):
            path.unlink()
    for name, text in pages.items():
        (directory / name).write_text(f"{MARK}\n{text}", encoding="utf-8")
