"""The snippets of docs/clients.md, run against a live server if their language is installed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
SNIPPETS = dict(
    re.findall(r"<details><summary>.*?</summary>\n\n```(\w+)\n(.*?)```\n\n</details>", TEXT, re.DOTALL)
)
CSPROJ = """\
<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><OutputType>Exe</OutputType>
<TargetFramework>net{version}.0</TargetFramework><ImplicitUsings>enable</ImplicitUsings></PropertyGroup></Project>
"""
pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]


def interpreter(name: str) -> str:
    """Return a program's path, also from this virtual environment; skip the test if there is none."""
    places = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    if (found := shutil.which(name, path=places)) is None:
        pytest.skip(f"{name} is not installed")
    return found


def script(name: str, ending: str, *options: str) -> Callable[[Path, str], list[str]]:
    """Return a function that writes a snippet to a file and returns the command to run it."""

    def written(folder: Path, snippet: str) -> list[str]:
        program = interpreter(name)
        path = folder / f"call{ending}"
        path.write_text(snippet, encoding="utf-8")
        return [program, *options, str(path)]

    return written


def _r(folder: Path, snippet: str) -> list[str]:
    command = script("Rscript", ".R")(folder, snippet)
    if subprocess.run(
        [command[0], "-e", "library(httr2); library(jsonlite)"], capture_output=True, check=False
    ).returncode:
        pytest.skip("R lacks httr2 or jsonlite")
    return command


def _cpp(folder: Path, snippet: str) -> list[str]:
    compiler, *_, source = script("g++", ".cpp")(folder, snippet)
    command = [compiler, source, "-o", str(folder / "call"), "-lcurl"]
    probe = subprocess.run(
        [compiler, "-x", "c++", "-E", "-include", "curl/curl.h", "/dev/null"],
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip("the headers of libcurl are not installed")
    subprocess.run(command, check=True)
    return [str(folder / "call")]


def _rust(folder: Path, snippet: str) -> list[str]:
    compiler, source = script("rustc", ".rs")(folder, snippet)
    subprocess.run([compiler, source, "-o", str(folder / "call")], check=True)
    return [str(folder / "call")]


def _csharp(folder: Path, snippet: str) -> list[str]:
    dotnet = interpreter("dotnet")
    version = subprocess.run(
        [dotnet, "--version"], capture_output=True, text=True, check=True
    ).stdout.partition(".")[0]
    (folder / "call.csproj").write_text(CSPROJ.replace("{version}", version), encoding="utf-8")
    (folder / "Program.cs").write_text(snippet, encoding="utf-8")
    return [dotnet, "run", "--project", str(folder)]


def _swift(folder: Path, snippet: str) -> list[str]:
    compiler, source = script("swiftc", ".swift")(folder, snippet)
    subprocess.run([compiler, source, "-o", str(folder / "call")], check=True)
    return [str(folder / "call")]


RUN: dict[str, Callable[[Path, str], list[str]]] = {
    "bash": script("bash", ".sh"),
    "python": script(sys.executable, ".py"),
    "javascript": script("node", ".mjs"),
    "go": script("go", ".go", "run"),
    "java": script("java", ".java"),
    "csharp": _csharp,
    "rust": _rust,
    "cpp": _cpp,
    "r": _r,
    "php": script("php", ".php"),
    "ruby": script("ruby", ".rb"),
    "swift": _swift,
    "perl": script("perl", ".pl"),
}


def test_there_are_more_than_ten_and_each_is_run() -> None:
    assert SNIPPETS.keys() == RUN.keys()
    assert len(SNIPPETS) > 10
    assert TEXT.count("<details>") == len(SNIPPETS)


@pytest.mark.parametrize("language", RUN)
def test_one_call_prints_the_loss_and_its_gradient(language: str, server: str, tmp_path: Path) -> None:
    snippet = SNIPPETS[language]
    assert snippet.count("127.0.0.1:8000") == 1
    command = RUN[language](tmp_path, snippet.replace("127.0.0.1:8000", server.removeprefix("http://")))
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(tmp_path / "go"), "DOTNET_NOLOGO": "1"}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    numbers = [float(number) for number in re.findall(r"-?\d\.\d+(?:e-?\d+)?", ended.stdout)]
    assert numbers[0] == pytest.approx(0.41703, abs=1e-4)
    assert numbers[1:4] == pytest.approx([-0.34100, 0.24243, 0.09857], abs=1e-4)
