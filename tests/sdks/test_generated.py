"""Clients generated from the whole document compile and work."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdks import toolchains

DOCUMENT = Path(__file__).parents[2] / "openapi" / "openapi.json"
PROGRAMS = Path(__file__).parent / "generated"
# no documentation and no tests: nothing here uses them
CODE = {"apiTests": "false", "modelTests": "false", "apiDocs": "false", "modelDocs": "false"}
pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate the clients of openapi-generator in one process, because it starts slowly."""
    folder, settings = tmp_path_factory.mktemp("generated"), tmp_path_factory.mktemp("settings")
    for generator, more in {"go": {}, "typescript-fetch": {}, "java": {"library": "native"}}.items():
        config = {
            "generatorName": generator,
            "inputSpec": str(DOCUMENT),
            "outputDir": str(folder / generator),
            "globalProperties": CODE,
            **more,
        }
        (settings / f"{generator}.json").write_text(json.dumps(config))
    configs = sorted(settings.iterdir())
    command = [toolchains.java("java"), "-jar", toolchains.generator(), "batch", "--fail-fast", *configs]
    toolchains.run(*command, limit_s=300)
    return folder


def check(printed: str) -> None:
    """Compare the output of a program with the results that every client must get."""
    found: dict[str, Any] = json.loads(printed)
    assert found["value"] == pytest.approx(0.41703, abs=1e-5)
    assert found["gradients"] == [pytest.approx([-0.340999, 0.242433, 0.098566], abs=1e-5)]
    assert found["generic"] == 9
    # the batch's defaults apply: delta 3 gives 10.5, huber's own default 4.5; float64; no gradients
    assert found["batch"] == [["ok", 10.5, "float64", 0]] * 2
    assert found["problem"] == [422, "/inputs/targets/0", "domain"]


def test_openapi_generators_client_for_go(generated: Path, open_server: str) -> None:
    client = generated / "go"
    (client / "calls").mkdir()
    shutil.copy(PROGRAMS / "go" / "main.go", client / "calls")
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    go = toolchains.go()
    toolchains.run(go, "build", "-o", client / "program", "./calls", cwd=client, env=offline, limit_s=300)
    check(toolchains.run(client / "program", open_server))


def test_openapi_generators_client_for_javas_own_http_client(
    generated: Path, open_server: str, tmp_path: Path
) -> None:
    # the generator's jar contains the Jackson that its clients need, but not JsonNullable
    libraries = f"{toolchains.generator()}:{tmp_path}"
    for sources in (
        (PROGRAMS / "java_libraries").rglob("*.java"),
        (generated / "java" / "src" / "main" / "java").rglob("*.java"),
        (PROGRAMS / "java").rglob("*.java"),
    ):
        compile_java(sources, libraries, tmp_path)
    check(toolchains.run(toolchains.java("java"), "-cp", libraries, "Calls", open_server))


def compile_java(sources: Iterator[Path], libraries: str, classes: Path) -> None:
    listed = classes / "sources.txt"
    listed.write_text("\n".join(map(str, sources)))
    javac = toolchains.java("javac")
    toolchains.run(
        javac, "-proc:none", "--release", "17", "-cp", libraries, "-d", classes, f"@{listed}", limit_s=300
    )


def test_openapi_generators_client_for_typescript(generated: Path, open_server: str, tmp_path: Path) -> None:
    (tmp_path / "client").symlink_to(generated / "typescript-fetch")
    check(run_typescript("fetch.ts", open_server, tmp_path))


def test_hey_apis_client_for_typescript(open_server: str, tmp_path: Path) -> None:
    generator = toolchains.npm_module("@hey-api/openapi-ts/bin/run.js")
    toolchains.run(
        toolchains.node(), generator, "-i", DOCUMENT, "-o", tmp_path / "client", "--no-log-file", cwd=tmp_path
    )
    check(run_typescript("hey.ts", open_server, tmp_path))


def run_typescript(program: str, url: str, folder: Path) -> str:
    """Compile a program and its client with all strict options, and run it."""
    shutil.copy(PROGRAMS / "typescript" / program, folder)
    options = (
        "--strict --target es2022 --module commonjs --moduleResolution node10 --lib es2022,dom,dom.iterable"
    )
    tsc = toolchains.npm_module("typescript/bin/tsc")
    toolchains.run(toolchains.node(), tsc, *options.split(), "--outDir", "out", program, cwd=folder)
    return toolchains.run(
        toolchains.node(), folder / "out" / Path(program).with_suffix(".js"), url, cwd=folder
    )


def test_openapi_python_clients_client(open_server: str, tmp_path: Path) -> None:
    program = toolchains.python_script("openapi-python-client")
    config = tmp_path / "config.json"
    # skip ruff, which would only format
    config.write_text('{"post_hooks": []}')
    client = tmp_path / "lossd_client"
    options = ["--path", DOCUMENT, "--output-path", client, "--meta", "none", "--config", config]
    said = toolchains.run(program, "generate", *options)
    # this generator warns that it does not support streams, and parts of evaluations other than JSON
    warned = {f"Unsupported content type {media}" for media in ("application/x-ndjson", "text/csv")}
    assert {*re.findall(r"WARNING.*\n+(.*)", said)} == warned, said
    check(
        toolchains.run(
            toolchains.python(),
            PROGRAMS / "python_calls.py",
            open_server,
            env={"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "error"},
        )
    )
