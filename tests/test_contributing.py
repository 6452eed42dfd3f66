"""CONTRIBUTING's example of a new loss runs as it is printed, in a copy of the project."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# the last path before a block of Python is where the block goes
EXAMPLES = re.findall(r"`((?:service|tests)/\S+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL)
[TESTS] = re.findall(r"^\.venv/bin/python -m (pytest .*)$", TEXT, re.MULTILINE)


def test_the_example_of_a_new_loss_passes_the_tests_of_every_loss(tmp_path: Path) -> None:
    written = _copy_with_the_example(tmp_path)
    output = _run(tmp_path, shlex.split(TESTS))
    assert re.search(r"\d\d passed", output), output
    _run(tmp_path, ["ruff", "check", *written])
    _run(tmp_path, ["ruff", "format", "--check", *written])


def _copy_with_the_example(folder: Path) -> list[str]:
    """Copy the project, write CONTRIBUTING's examples into it, and return their paths."""
    for part in ("service", "tests", "benchmarks"):
        copytree(ROOT / part, folder / part, ignore=ignore_patterns("__pycache__", "node_modules"))
    copy(ROOT / "pyproject.toml", folder)
    for path, code in EXAMPLES:
        assert not (folder / path).exists(), f"{path} exists: the example must not replace it"
        (folder / path).write_text(code, encoding="utf-8")
    assert len(EXAMPLES) == 2
    return [path for path, _ in EXAMPLES]


def _run(folder: Path, command: list[str]) -> str:
    """Run a Python module in a folder and return what it printed; fail where it fails."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr)
    return done.stdout
