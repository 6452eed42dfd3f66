"""No loss mixes devices, or waits or uploads without need, on the pretended GPU."""

import subprocess
import sys

import pytest

from tests.gpu import pretend


@pytest.mark.skipif(not pretend.exists(), reason="this torch takes no backend that is written in Python")
@pytest.mark.timeout(900)
def test_every_loss_is_computed_on_one_device_without_waits() -> None:
    # the hook changes torch for a whole process
    checked = subprocess.run([sys.executable, "-m", "tests.gpu.check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout[-5000:] + checked.stderr[-2000:]
