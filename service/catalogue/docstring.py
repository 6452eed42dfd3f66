"""Read a declaration's docstring: a summary line, prose, and sections such as ``Formula:`` and ``Args:``."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass

SECTIONS = ("Formula", "Args", "Use when", "Pitfalls", "Sources")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Prose:
    """The text of a docstring, by section."""

    summary: str
    formula: str
    arguments: Mapping[str, str]
    use_when: str
    pitfalls: str
    sources: tuple[str, ...]


def read(docstring: str) -> Prose:
    """Split a docstring into its sections.

    Raises:
        ValueError: a section is missing or empty, or the summary is not a single line.
    """
    head, *rest = _HEADING.split(inspect.cleandoc(docstring))
    sections = {
        title: inspect.cleandoc("\n" + body) for title, body in zip(rest[::2], rest[1::2], strict=True)
    }
    if missing := [title for title in SECTIONS if not sections.get(title)]:
        raise ValueError(f"the docstring has no section {', '.join(missing)}")
    summary = head.strip().split("\n\n")[0]
    if not summary or "\n" in summary:
        raise ValueError("the docstring has no summary of one line")
    _, *arguments = _ARGUMENT.split(sections["Args"])
    return Prose(
        summary=summary,
        formula=sections["Formula"],
        arguments={n: " ".join(d.split()) for n, d in zip(arguments[::2], arguments[1::2], strict=True)},
        use_when=" ".join(sections["Use when"].split()),
        pitfalls=" ".join(sections["Pitfalls"].split()),
        sources=tuple(
            " ".join(s.split())
            for s in re.split(r"^- ", sections["Sources"], flags=re.MULTILINE)
            if s.strip()
        ),
    )
