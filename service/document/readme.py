"""The parts of the README that follow from the code: the losses by task, the settings."""

import re
from pathlib import Path

from service.catalogue.registry import Catalogue
from service.document.markdown import family_of
from service.settings import settings_table
from service.telemetry import metrics


def fill(catalogue: Catalogue, path: Path) -> None:
    """Write the generated parts between their marks, such as ``<!-- losses -->`` and ``<!-- /losses -->``."""
    path.write_text(filled(catalogue, path.read_text(encoding="utf-8")), encoding="utf-8")


def filled(catalogue: Catalogue, text: str) -> str:
    """Return a text with its generated parts as they should be."""
    for name, part in (
        ("losses", _losses(catalogue)),
        ("settings", settings_table()),
        ("metrics", metrics.metrics_table()),
    ):
        between = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda marks, part=part: f"{marks[1]}{part}\n{marks[2]}", text)
    return text


def _losses(catalogue: Catalogue) -> str:
    """Return a table of the tasks and the losses for each, linked to their pages."""
    tasks = sorted({task for loss in catalogue.values() for task in loss.tasks})
    rows = ["| task | losses |", "| --- | --- |"]
    for task in tasks:
        losses = [loss for loss in catalogue.values() if task in loss.tasks]
        links = [f"[{loss.name}](docs/losses/{family_of(loss)}.md#{loss.name})" for loss in losses]
        rows.append(f"| {task.replace('_', ' ')} ({len(losses)}) | {' · '.join(links)} |")
    return "\n".join(rows)
