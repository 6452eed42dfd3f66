"""Checks of the container image that need no build."""

import json
import re
import tomllib
from fnmatch import fnmatch
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.cli import main
from service.settings import Settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())).splitlines()
FINAL_STAGE = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
COPIED = [
    source
    for line in INSTRUCTIONS
    if line.startswith("COPY ") and "--from=" not in line
    for source in line.split()[1:-1]
]


def last(instruction: str) -> str:
    """Return the last such instruction of the final stage."""
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
    files = [file for file in [path, *path.rglob("*")] if file.is_file() and file.suffix != ".pyc"]
    assert files
    assert [file for file in files if not admitted(file.relative_to(ROOT))] == []


@pytest.mark.parametrize(
    "path", [".git/HEAD", "tests/test_image.py", "service/__pycache__/cli.pyc", ".env", "tests/service/x.py"]
)
def test_the_build_context_has_no_more(path: str) -> None:
    assert not admitted(Path(path))


def test_it_runs_without_root() -> None:
    user = last("USER").partition(":")[0]
    # a number, so that an orchestrator can verify that it is not root
    assert user.isdecimal() and int(user) > 0


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "HEALTHCHECK"])
def test_its_commands_exist(instruction: str) -> None:
    command, *arguments = json.loads(re.sub(r"^.*CMD ", "", last(instruction)))
    if instruction == "ENTRYPOINT":
        arguments += json.loads(last("CMD"))
    assert PROJECT["scripts"][command] == f"{main.__module__}:{main.__name__}"
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--help"])
    assert exit_.value.code == 0


def test_its_version_is_the_projects() -> None:
    assert f"ARG VERSION={PROJECT['version']}" in FINAL_STAGE


def test_nothing_in_it_may_raise_its_rights() -> None:
    assert "chmod a-s" in last("RUN")
    assert FINAL_STAGE.index(f"RUN {last('RUN')}") < FINAL_STAGE.index(f"USER {last('USER')}")


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
def test_what_serving_needs_is_pinned_by_hash_to_the_version_that_is_tested(torch: str) -> None:
    pins = pinned(torch)
    # torch for CPUs has another hash on each index
    assert ("torch" in pins) == (torch == "cuda")
    assert needed("lossd") - pins.keys() <= {"torch"}, "run `make lock`"
    assert [name for name, (_, hashes) in pins.items() if not hashes] == []
    constraints = re.findall(r"(?m)^([^#=]+)==(\S+)", (ROOT / "constraints.txt").read_text())
    tested: dict[str, str] = {canonicalize_name(name): version for name, version in constraints}
    other = {name: version for name, (version, _) in pins.items() if tested.get(name, version) != version}
    assert other == {}, "run `make lock`"


def test_the_image_computes_on_what_its_torch_is_for() -> None:
    """One for CUDA that finds no GPU ends, instead of computing on the CPU."""
    assert "ARG TORCH=cpu" in FINAL_STAGE
    assert "LOSSD_DEVICE=${TORCH} " in last("ENV")


@pytest.mark.parametrize("name", ["lossd", "lossd-gpu", "lossd-volume"])
def test_kubernetes_waits_for_what_was_accepted(name: str) -> None:
    manifest = (ROOT / f"deploy/kubernetes/{name}.yaml").read_text()
    grace, sleep = (
        int(number)
        for number in re.findall(r"(?:terminationGracePeriodSeconds: |sleep: \{ seconds: )(\d+)", manifest)
    )
    assert grace > Settings.model_fields["drain_s"].default + sleep


def test_the_manifest_for_gpus_differs_in_what_a_gpu_needs() -> None:
    plain, gpu = (
        list(yaml.safe_load_all((ROOT / f"deploy/kubernetes/{name}.yaml").read_text()))
        for name in ("lossd", "lossd-gpu")
    )
    # a surge would wait for a GPU that nobody gives up
    assert gpu[0]["spec"].pop("strategy") == {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    del plain[0]["spec"]["strategy"]
    [[container], [other]] = (
        manifest[0]["spec"]["template"]["spec"]["containers"] for manifest in (gpu, plain)
    )
    assert container.pop("resources")["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    probe = container.pop("startupProbe")
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 180
    assert container.pop("image") == "lossd:cuda"
    for name in ("resources", "startupProbe", "image"):
        del other[name]
    assert gpu == plain


def pinned(torch: str) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each package that the image for this torch has."""
    entries = re.findall(
        r"(?m)^([\w.-]+)==(\S+)((?:.*\\\n)*.*)", (ROOT / f"requirements/{torch}.txt").read_text()
    )
    return {
        canonicalize_name(name): (version, re.findall(r"--hash=sha256:[0-9a-f]{64}", rest))
        for name, version, rest in entries
    }


def needed(name: str) -> set[str]:
    """Return a package's requirements here, recursively; none for torch, whose builds differ."""
    found: set[str] = set()
    names = [name]
    while names:
        for requirement in map(Requirement, requires(names.pop()) or ()):
            other = canonicalize_name(requirement.name)
            if other not in found and (
                not requirement.marker or requirement.marker.evaluate({"extra": "otel"})
            ):
                found.add(other)
                names += [other] if other != "torch" else []
    return found
