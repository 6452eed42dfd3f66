"""Programs of the examples that must be compiled."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile a Go example as ``go run`` does: without a network, or a trace in the user's cache."""
    if shutil.which("go") is None:
        pytest.skip("there is no go on this machine")
    folder, cache = tmp_path_factory.mktemp("go"), tmp_path_factory.mktemp("go-cache")
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOCACHE": str(cache)}

    def build(source: str) -> Path:
        program = folder / Path(source).stem
        command = ["go", "build", "-o", str(program), str(EXAMPLES / source)]
        subprocess.run(command, env=environment, timeout=300, check=True)
        return program

    return build
