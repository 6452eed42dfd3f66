"""A PostgreSQL server for tests, where one is installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.servers import free_port

USER = "postgres"


@dataclass(frozen=True)
class Postgres:
    """A server with its data in a folder."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def run(self, *command: str) -> None:
        """Run one of its programs, which refuse to run as root."""
        switch = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        full = [*switch, str(self.programs / command[0]), *command[1:]]
        subprocess.run(full, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        log = self.folder.parent / "log"
        options = f"-p {self.port} -h 127.0.0.1 -k '' -c fsync=off"
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-l", str(log), "-o", options, "start")

    def stop(self, mode: str) -> None:
        """Stop the server: "immediate" is a crash."""
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-m", mode, "stop")


@contextmanager
def running() -> Generator[Postgres]:
    """Start a new server; skip the test where there is none to start."""
    if (programs := _programs()) is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="lossd-postgres-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(USER)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        server = Postgres(programs, folder / "data", free_port())
        server.run("initdb", "-D", str(server.folder), "-U", USER, "-A", "trust", "-N")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Return the folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None
