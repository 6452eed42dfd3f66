"""Texts that users read avoid some phrasings that need a second reading."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.document.openapi import document
from service.document.pages import pages
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.settings import Settings
from service.telemetry.metrics import METRICS as SERIES

ROOT = Path(__file__).parents[2]
RIDDLES = re.compile(
    r"\b(told|is said|as it were|so as to|in so great|of (?:its|their) own|what there is|be had)\b"
)
TEXTS = {
    **{
        name: (ROOT / name).read_text(encoding="utf-8")
        for name in (
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "docs/clients.md",
            "docs/expressions.md",
            "docs/gpu.md",
            "clients/go/README.md",
            "clients/java/README.md",
            "clients/typescript/README.md",
            "docs/operations.md",
        )
    },
    "settings": "\n".join(str(field.description) for field in Settings.model_fields.values()),
    "metrics": "\n".join(series.meaning for series in SERIES),
    "alerts": str(yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))),
    "pages": "\n".join(pages(CATALOGUE).values()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_worded_plainly(name: str) -> None:
    assert not _riddles(TEXTS[name])


def test_the_openapi_document_is_worded_plainly() -> None:
    assert not _riddles("\n".join(_prose(document(CATALOGUE.values(), METRICS.values()))))


def _riddles(text: str) -> list[str]:
    """Return the lines that should be reworded."""
    return [line.strip()[:200] for line in text.splitlines() if RIDDLES.search(line)]


def _prose(node: Any) -> list[str]:
    """Return the summaries and descriptions in a document."""
    if isinstance(node, list):
        return [text for item in node for text in _prose(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("summary", "description") if isinstance(node.get(key), str)]
    return own + [text for value in node.values() for text in _prose(value)]
