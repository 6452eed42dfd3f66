"""Triton's load generator, a C++ program, which reads metadata, configuration and statistics before it starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference_protocol.calls import LOGITS, TARGETS

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]
FOLDER = Path(sys.prefix) / "perf_analyzer"
LIBRARIES = FOLDER / "nvidia" / "cuda_runtime" / "lib"
COMMAND = FOLDER / "bin" / "perf_analyzer"


@pytest.fixture(scope="module")
def runs() -> None:
    """Skip where the program, which is for Linux on x86-64, is not there or finds a library missing."""
    if not COMMAND.exists():
        pytest.skip("no perf_analyzer: make test-clients")
    found = subprocess.run(
        [shutil.which("ldd") or "ldd", str(COMMAND)], capture_output=True, text=True, env=environment()
    )
    if missing := [line.strip() for line in found.stdout.splitlines() if "not found" in line]:
        pytest.skip(f"perf_analyzer lacks {missing}: apt-get install libb64-0d")


def environment() -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}


# as JSON it sends the numbers of a first dimension of 1, however long that is
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("rows", "options"),
    [(32, []), (1, ["--input-tensor-format=json", "--output-tensor-format=json"])],
    ids=["binary", "json"],
)
def test_it_measures(server: str, tmp_path: Path, rows: int, options: list[str]) -> None:
    data, table = tmp_path / "data.json", tmp_path / "table.csv"
    tensors = {
        "logits": {"content": LOGITS[:rows].ravel().tolist(), "shape": [rows, 10]},
        "targets": {"content": TARGETS[:rows].tolist(), "shape": [rows]},
    }
    data.write_text(json.dumps({"data": [tensors]}))
    command = [str(COMMAND), "-m", "cross_entropy", "-u", server.removeprefix("http://"), "-i", "http"]
    shapes = ["--shape", f"logits:{rows},10", "--shape", f"targets:{rows}", "--input-data", str(data)]
    window = [
        "--measurement-mode",
        "count_windows",
        "--measurement-request-count",
        "50",
        "-s",
        "999",
        "-r",
        "3",
    ]
    done = subprocess.run(
        [*command, *shapes, *window, "--concurrency-range", "2", "-f", str(table), *options],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput" in done.stdout
    assert table.exists()
