"""The pages of the losses: committed as they are generated, with links and examples that work."""

import re
import shlex
from pathlib import Path

import orjson
import pytest

from service.catalogue.registry import AnyLoss
from service.document.markdown import MARK, write_pages
from service.document.metric_pages import metric_pages
from service.document.pages import pages
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.wire import describe
from tests.conformance.cases import every_loss

DOCS = Path(__file__).parents[1] / "docs"
PAGES = pages(CATALOGUE)
METRIC_PAGES = metric_pages(METRICS)
BOTH = (PAGES, METRIC_PAGES)


@pytest.mark.parametrize(("folder", "found"), [("losses", PAGES), ("metrics", METRIC_PAGES)])
def test_the_committed_pages_are_those_generated(folder: str, found: dict[str, str], tmp_path: Path) -> None:
    write_pages(found, tmp_path)
    committed = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / folder).iterdir()}
    assert committed == {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}, (
        "run `make docs`"
    )


def test_pages_of_families_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text(f"{MARK}\n# Gone\n")
    (tmp_path / "notes.md").write_text("# Not ours\n")
    write_pages(PAGES, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.md", *PAGES}


def test_links_between_pages_lead_to_headings() -> None:
    for others, text in ((found, text) for found in BOTH for text in found.values()):
        for page, heading in re.findall(r"\]\((\w+\.md)#([\w-]+)\)", text):
            assert heading in _anchors(others[page])
        for page in re.findall(r"\]\((\w+\.md)\)", text):
            assert page in others
        for heading in re.findall(r"\]\(#([\w-]+)\)", text):
            assert heading in _anchors(text)


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    for text in (text for found in BOTH for text in found.values()):
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_formulas_keep_to_what_github_renders() -> None:
    assert "operatorname" not in "".join((*PAGES.values(), *METRIC_PAGES.values()))


@every_loss
def test_each_loss_has_a_section_with_its_example(loss: AnyLoss) -> None:
    [section] = [
        part for text in PAGES.values() for part in text.split("\n## ") if part.startswith(f"{loss.name}\n")
    ]
    [command] = re.findall(r"```sh\n(.*?)\n```", section, re.DOTALL)
    _, url, *_, body = shlex.split(command)
    assert url.endswith(f"/v1/losses/{loss.name}")
    assert orjson.loads(body) == describe.example(loss)
    for text_part in (loss.title, loss.prose.summary, *loss.aliases, *loss.inputs, *loss.params):
        assert text_part in section
    assert f"({Path(_page_of(loss)).name}#{loss.name})" in PAGES["README.md"]


def _page_of(loss: AnyLoss) -> str:
    return next(name for name, text in PAGES.items() if f"\n## {loss.name}\n" in text)


def _anchors(text: str) -> set[str]:
    """Return GitHub's anchors of a page's headings."""
    return {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
