"""What can be told of the container image without building it."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from service.cli import main

ROOT = Path(__file__).parents[1]
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())).splitlines()
FINAL_STAGE = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
COPIED = [
    source
    for line in INSTRUCTIONS
    if line.startswith("COPY ") and "--from=" not in line
    for source in line.split()[1:-1]
]


def last(instruction: str) -> str:
    """Return what the final stage's last such instruction says."""
    return next(
        line.removeprefix(instruction).strip()
        for line in reversed(FINAL_STAGE)
        if line.startswith(f"{instruction} ")
    )


def admitted(path: Path) -> bool:
    """Return whether .dockerignore lets a file through: the last pattern that matches it or a parent decides."""
    names = [path.as_posix(), *(parent.as_posix() for parent in path.parents[:-1])]
    answer = True
    for pattern in (ROOT / ".dockerignore").read_text().split():
        glob = f"/{pattern.removeprefix('!')}".replace("/**/", "*/")
        if any(fnmatch(f"/{name}", glob) for name in names):
            answer = pattern.startswith("!")
    return answer


@pytest.mark.parametrize("source", COPIED)
def test_the_build_context_has_what_is_copied(source: str) -> None:
    path = ROOT / source
    files = [path] if path.is_file() else [file for file in path.rglob("*.py") if file.is_file()]
    assert files
    assert [file for file in files if not admitted(file.relative_to(ROOT))] == []


@pytest.mark.parametrize(
    "path", [".git/HEAD", "tests/test_image.py", "service/__pycache__/cli.pyc", ".env", "tests/service/x.py"]
)
def test_the_build_context_has_no_more(path: str) -> None:
    assert not admitted(Path(path))


def test_it_runs_without_root() -> None:
    user = last("USER").partition(":")[0]
    # a number, so that an orchestrator can tell that it is not root
    assert user.isdecimal() and int(user) > 0


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "HEALTHCHECK"])
def test_its_commands_exist(instruction: str) -> None:
    command, *arguments = json.loads(re.sub(r"^.*CMD ", "", last(instruction)))
    if instruction == "ENTRYPOINT":
        arguments += json.loads(last("CMD"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts[command] == f"{main.__module__}:{main.__name__}"
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--help"])
    assert exit_.value.code == 0
