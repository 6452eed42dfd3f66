"""The examples work, against a live server."""

import json
import shutil
import subprocess
from collections.abc import Callable
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


@pytest.mark.timeout(400)
def test_a_go_program_moves_boxes_onto_targets_that_they_do_not_touch(server: str, boxes: Path) -> None:
    ended = subprocess.run([boxes, server], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table, conclusion = ended.stdout.split("\n\n")
    # loss, IoU and area at a step, under iou, giou and ciou
    first, *_, last = [[run.split() for run in line.split("|")[1:]] for line in table.splitlines()[1:]]
    assert [overlap for _, overlap, _ in first] == ["0.000"] * 3
    assert last[0] == first[0]
    assert all(float(overlap) > 0.95 for _, overlap, _ in last[1:])
    giou, ciou = (int(words.split(",")[0]) for words in conclusion.split("at step ")[1:])
    assert ciou < giou


@pytest.mark.timeout(400)
def test_the_go_program_says_when_there_is_no_server(boxes: Path) -> None:
    command = [boxes, "http://127.0.0.1:1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "is the server running?" in ended.stderr


@pytest.mark.timeout(400)
def test_a_go_program_trains_a_detector_until_it_finds_its_boxes(
    server: str, compiled: Callable[[str], Path]
) -> None:
    command = [compiled("detection/detector.go"), server]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table, conclusion = ended.stdout.strip().split("\n\n")
    losses = [float(line.split()[1]) for line in table.splitlines()[1:]]
    assert losses[-1] < losses[0] / 10
    found, wrong, least = table.splitlines()[-1].split("|")[1].split()
    assert found == "34/34"
    assert wrong == "0"
    assert float(least) > 0.8
    assert conclusion.startswith("All 34 boxes are found")


@pytest.fixture(scope="module")
def boxes(compiled: Callable[[str], Path]) -> Path:
    """The Go example of boxes."""
    return compiled("detection/boxes.go")
