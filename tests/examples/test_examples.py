"""The examples do what they say, against a live server."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.server


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on this machine")
def test_a_node_program_learns_digits_from_served_gradients(server: str) -> None:
    command = ["node", str(EXAMPLES / "node" / "train_digits.mjs"), server]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 20
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < losses[0] / 2
    assert float(lines[-1].split("accuracy ")[1].split()[0]) > 93


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_same_in_curl_for_one_call(server: str) -> None:
    command = ["sh", str(EXAMPLES / "curl" / "one_call.sh"), server]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ended.stdout)["loss"] == "cross_entropy"
