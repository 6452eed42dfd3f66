"""No loss mixes devices, or waits or uploads without need, on the pretended GPU."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.gpu import pretend

pytestmark = [
    pytest.mark.skipif(not pretend.exists(), reason="this torch does not support backends in Python"),
    pytest.mark.timeout(900),
]
HERE, THERE = "cpu", "pretended:0"


def test_every_loss_is_computed_on_one_device_without_waits() -> None:
    checked = run("check")
    assert checked.returncode == 0, checked.stdout[-5000:] + checked.stderr[-2000:]


@pytest.fixture(scope="module")
def served() -> Any:
    """The answers of a server with the device, and of one without."""
    asked = run("serving")
    assert asked.returncode == 0, asked.stderr[-3000:]
    return json.loads(asked.stdout)


@pytest.mark.parametrize(
    ("what", "device"),
    [
        ("small", [HERE]),
        ("large", [THERE]),
        ("larger than is read on the loop", [THERE]),
        ("a few together", [HERE] * 3),
        ("many together", [THERE] * 30),
        ("few and large together", [THERE] * 2 + [HERE] * 2),
        ("distances of contours", [HERE]),
        ("a composition", [THERE]),
        ("compositions together", [THERE] * 3),
    ],
)
def test_calls_are_computed_where_that_takes_less_time_and_the_answer_says_where(
    served: Any, what: str, device: list[str]
) -> None:
    there, here = served[what]
    assert [place for place, _ in there] == device
    assert {place for place, _ in here} == {HERE}
    assert [value for _, value in there] == pytest.approx([value for _, value in here], rel=1e-5)


def run(module: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a separate process, because torch's hook cannot be undone."""
    return subprocess.run([sys.executable, "-m", f"tests.gpu.{module}"], capture_output=True, text=True)
