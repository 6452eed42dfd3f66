"""The client for Java: its own tests and its README against a live server."""

from pathlib import Path

import pytest

from tests.sdks import toolchains
from tests.sdks.conftest import Keyed
from tests.sdks.readme import CLIENTS, example

CLIENT = CLIENTS / "java"
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the client, without a warning."""
    folder = tmp_path_factory.mktemp("classes")
    sources = sorted((CLIENT / "src/main/java").rglob("*.java"))
    javac = toolchains.java("javac")
    toolchains.run(javac, "-Xlint:all", "-Werror", "--release", "17", "-d", folder, *sources)
    return folder


def test_the_client_meets_its_table_of_cases_and_a_busy_server(
    keyed: Keyed, classes: Path, tmp_path: Path
) -> None:
    tests = sorted((CLIENT / "src/test/java").rglob("*.java"))
    toolchains.run(toolchains.java("javac"), "-Xlint:all", "-cp", classes, "-d", tmp_path, *tests)
    path = f"{classes}:{tmp_path}"
    said = toolchains.run(
        toolchains.java("java"), "-cp", path, "lossd.LossdCheck", CLIENTS / "cases.json", env=keyed.env
    )
    assert said.endswith(" passed, 0 failed\n")


def test_the_example_of_the_readme_runs(open_server: str, classes: Path, tmp_path: Path) -> None:
    (tmp_path / "Example.java").write_text(example("java", "java"))
    command = [toolchains.java("java"), "-cp", classes, tmp_path / "Example.java", open_server]
    first, *others = toolchains.run(*command).splitlines()
    assert first.startswith("0.4170") and first.count(",") == 2
    assert others[0] == "a 10.5"
    assert others[1].startswith("b ") and "hubert" in others[1]
    assert others[2:] == ["998001.0", "422 /inputs/targets/0"]
