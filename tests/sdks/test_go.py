"""The client for Go: its own tests and its README against a live server."""

import os
from pathlib import Path

import pytest

from tests.sdks import toolchains
from tests.sdks.conftest import Keyed
from tests.sdks.readme import CLIENTS, example

CLIENT = CLIENTS / "go"
OFFLINE = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]


def go(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run the ``go`` command; the first run compiles the standard library, which takes a minute."""
    return toolchains.run(toolchains.go(), *words, cwd=cwd, env={**OFFLINE, **(env or {})}, limit_s=280)


def test_the_client_meets_its_table_of_cases_and_a_busy_server(keyed: Keyed) -> None:
    go("vet", ".", cwd=CLIENT)
    said = go("test", "-count=1", "-timeout=100s", "-v", ".", cwd=CLIENT, env=dict(keyed.env))
    assert "--- PASS: TestEvaluate/" in said and "--- SKIP" not in said


def test_the_client_is_formatted() -> None:
    folder = Path(toolchains.go()).resolve().parent
    if not (gofmt := folder / "gofmt").exists():
        pytest.skip("this Go comes without gofmt")
    assert toolchains.run(gofmt, "-l", CLIENT) == ""


def test_the_example_of_the_readme_runs(open_server: str, tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.23\n")
    (tmp_path / "main.go").write_text(example("go", "go"))
    go(
        "mod",
        "edit",
        "-require=lossd@v0.0.0",
        f"-replace=lossd={os.path.relpath(CLIENT, tmp_path)}",
        cwd=tmp_path,
    )
    first, *others = go("run", ".", open_server, cwd=tmp_path).splitlines()
    assert first.startswith("0.4170")
    assert others[0] == "a 10.5"
    assert others[1].startswith("b lossd: 404: ") or "hubert" in "".join(others[1:3])
    assert others[-2:] == ["998001", "422 /inputs/targets/0"]
