"""Settings: documented as they are, and refused with words."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.document.readme import filled
from service.losses import CATALOGUE
from service.settings import Settings, as_markdown

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_readme_shows_the_settings_as_they_are() -> None:
    assert as_markdown() in README, "run `make docs`"


def test_the_readmes_generated_parts_are_up_to_date() -> None:
    assert filled(CATALOGUE, README) == README, "run `make docs`"


def test_no_setting_is_named_that_does_not_exist() -> None:
    known = {f"LOSSD_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"LOSSD_[A-Z_]*[A-Z]", README))
    assert named <= known


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_MAX_BODY_BYTES", "123")
    assert Settings().max_body_bytes == 123


@pytest.mark.parametrize("command", ["serve", "health"])
@pytest.mark.parametrize(("name", "value"), [("LOSSD_PORT", "99999"), ("LOSSD_DEVICE", "tpu")])
def test_wrong_ones_stop_it_with_words(command: str, name: str, value: str) -> None:
    arguments = [sys.executable, "-m", "service", command]
    environment = {**os.environ, name: value}
    ended = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{name}: ")
    assert "Traceback" not in ended.stderr
