"""A container of the image: run as it is meant to be run, called, looked into and ended."""

import json
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.container.engine import Engine

IMAGE = "localhost/lossd:test"
USER = "12345:0"
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# podman's defaults: writable places, and health checks that need systemd
PODMAN = ("--read-only-tmpfs=false", "--no-healthcheck")
READY_S = 30
DRAIN_S = 20
# leaves out /proc, /sys and /dev, which are the kernel's
LOOK = """
import json, os, stat
writable, raising = [], []
for directory, names, files in os.walk("/"):
    if directory == "/":
        names[:] = set(names) - {"proc", "sys", "dev"}
    for path in [directory, *(os.path.join(directory, file) for file in files)]:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            continue
        if os.access(path, os.W_OK):
            writable.append(path)
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            raising.append(path)
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
print(json.dumps({"writable": writable, "raising": raising, "status": {k: v.split() for k, v in status.items()}}))
"""


@dataclass(frozen=True)
class Container:
    """A container that serves."""

    engine: Engine
    name: str
    url: str

    def run(self, *command: str) -> str:
        """Return the output of a command in the container."""
        return self.engine.call("exec", self.name, *command)

    def ready_within(self, seconds: float) -> float:
        """Return after how many seconds the server is ready.

        Raises:
            AssertionError: it is not within those given; with what it logged.
        """
        started = time.monotonic()
        while (waited := time.monotonic() - started) < seconds:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return waited
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {seconds} s: {self.engine.logs(self.name)}")

    def python(self, code: str) -> str:
        """Return the output of Python code in the container."""
        return self.run("python", "-c", code)

    def look(self) -> dict[str, Any]:
        """Return writable files, setuid files, and the server's status from the kernel."""
        return json.loads(self.python(LOOK))

    def stop(self) -> int:
        """Tell it to end, and return its exit code."""
        self.engine.call("stop", "--time", str(DRAIN_S), self.name)
        return int(self.engine.call("inspect", "--format", "{{.State.ExitCode}}", self.name))


@contextmanager
def running(engine: Engine, *options: str) -> Generator[Container]:
    """Run the image read-only, without capabilities, as a user that it does not know, in the host's network."""
    port = free_port()
    container = Container(engine, f"lossd-test-{port}", f"http://127.0.0.1:{port}")
    hardened = HARDENED if engine.command == "docker" else (*HARDENED, *PODMAN)
    network = ("--network", "host", "--env", f"LOSSD_PORT={port}")
    started = ("run", "--detach", "--name", container.name, "--user", USER, *network, *hardened, *options)
    engine.call(*started, IMAGE)
    try:
        yield container
    finally:
        engine.call("rm", "--force", container.name)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
