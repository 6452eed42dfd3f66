"""Tools that build and run images: Docker if its engine answers, else buildah and podman, which need none."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON_IMAGE = "python:3.11-slim"
PACKAGES = ("buildah", "podman", "runc", "catatonit", "mmdebstrap")


@dataclass(frozen=True)
class Engine:
    """Commands that build and run images here, and the image that is built upon."""

    build: tuple[str, ...]
    command: str
    base: str

    def call(self, *arguments: str) -> str:
        """Return the engine's output.

        Raises:
            AssertionError: it failed; with what it printed.
        """
        return called(self.command, *arguments)

    def logs(self, name: str) -> str:
        """Return the standard output and error of a container."""
        ended = subprocess.run(
            (self.command, "logs", name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return ended.stdout


@contextmanager
def engine() -> Generator[Engine]:
    """Give Docker, or buildah and podman with all that they keep in a directory that is deleted."""
    if os.environ.get("IMAGE_BUILDER") == "docker":
        yield Engine(("docker", "build"), "docker", PYTHON_IMAGE)
        return
    _install()
    with tempfile.TemporaryDirectory(prefix="lossd-image-") as name:
        directory = Path(name)
        os.environ |= _configured(directory)
        try:
            base = _base_image(directory)
            build = ("buildah", "build", "--isolation", "chroot", "--pull=never", "--format", "docker")
            yield Engine((*build, *_as_pip_is_set_up(directory)), "podman", base)
        finally:
            for things in ("pod", "container", "image"):
                called("podman", things, "rm", "--all", "--force")


def called(*command: str) -> str:
    """Return the output of a command.

    Raises:
        AssertionError: it failed; with what it printed.
    """
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(command)}: {ended.stdout}{ended.stderr}"
    return ended.stdout.strip()


def _install() -> None:
    """Install missing tools, as root on Debian; exit with a message elsewhere."""
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.exit(f"needs a Docker engine, or to be root on Debian for {', '.join(PACKAGES)}", returncode=1)
    if not all(_succeeds("dpkg", "--status", package) for package in PACKAGES):
        called("apt-get", "update")
        called("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)


def _configured(directory: Path) -> dict[str, str]:
    """Write how containers run where there is no systemd, no bridge and no right to raise limits."""
    containers = directory / "containers.conf"
    containers.write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=10000:10000", "nproc=4096:4096"]\n'
        'log_driver = "k8s-file"\n'
        "[engine]\n"
        'runtime = "runc"\n'
        'cgroup_manager = "cgroupfs"\n'
        'events_logger = "file"\n'
    )
    storage = directory / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/images"\nrunroot = "{directory}/run"\n'
    )
    return {"CONTAINERS_CONF": str(containers), "CONTAINERS_STORAGE_CONF": str(storage)}


def _base_image(directory: Path) -> str:
    """Return the base image by its digest: the official one, else Debian's Python 3.11, which stands in for it."""
    name = PYTHON_IMAGE
    if not _succeeds("buildah", "pull", "--quiet", name):
        name = f"localhost/{PYTHON_IMAGE}"
        _make_base_image(name, directory / "root.tar")
    return f"{name}@{called('podman', 'image', 'inspect', '--format', '{{.Digest}}', name)}"


def _make_base_image(name: str, root: Path) -> None:
    links = (f'ln -s /usr/bin/{command}3 "$1/usr/local/bin/{command}"' for command in ("python", "pip"))
    called(
        "mmdebstrap",
        "--variant=minbase",
        "--include=ca-certificates,python3,python3-pip,python3-venv",
        *(f"--customize-hook={link}" for link in links),
        "bookworm",
        str(root),
    )
    called("podman", "import", "--quiet", str(root), name)
    root.unlink()


def _as_pip_is_set_up(directory: Path) -> list[str]:
    """Return the options with which pip finds packages inside the build as it does outside."""
    listed = called(sys.executable, "-m", "pip", "config", "list").splitlines()
    settings = {
        key.rpartition(".")[2]: str(ast.literal_eval(value))
        for key, _, value in (line.partition("=") for line in listed)
    }
    named = {key: value for key in ("cert", "find-links", "index-url") if (value := settings.get(key))}
    configuration = directory / "pip.conf"
    configuration.write_text(
        "\n".join(["[global]", *(f"{key} = {value}" for key, value in named.items())]) + "\n"
    )
    paths = [path for value in named.values() for path in value.split() if Path(path).exists()]
    mounts = [f"{configuration}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in paths)]
    options = [option for mount in mounts for option in ("--volume", mount)]
    if any(wheel for path in paths for wheel in Path(path).glob("torch-*+cpu-*.whl")):
        options += ["--build-arg", "TORCH_CPU_INDEX="]
    return options


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
