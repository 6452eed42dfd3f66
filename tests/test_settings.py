"""Settings: documented as they are, and refused with words."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.document.readme import filled
from service.losses import CATALOGUE
from service.settings import Settings, as_markdown, unknown, variable

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
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOSSD_PORT", "99999"),
        ("LOSSD_DEVICE", "tpu"),
        ("LOSSD_THREADS", "100000000"),
    ],
)
def test_wrong_ones_stop_it_with_words(command: str, name: str, value: str) -> None:
    arguments = [sys.executable, "-m", "service", command]
    environment = {**os.environ, name: value}
    ended = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{name}: ")
    assert "Traceback" not in ended.stderr


ABSURD = [
    *[(name, value) for name in ("threads", "workers", "max_connections") for value in ("0", "100000000")],
    *[(name, str(10**30)) for name in Settings().limits() if name.startswith("max_")],
    *[(name, "inf") for name in ("deadline_s", "drain_s", "idle_s", "upload_s", "key_rate")],
    *[(name, "nan") for name in ("deadline_s", "drain_s", "idle_s", "upload_s", "key_rate")],
    *[("host", value) for value in ("", " ", "local host")],
    *[("port", value) for value in ("", "-1", "65536", "tcp://10.0.0.1:8000")],
    ("key_concurrency", "-1"),
    ("fuse", "perhaps"),
    ("log_level", ""),
]


@pytest.mark.parametrize(("value", "workers"), [("auto", None), ("3", 3)])
def test_the_number_of_workers_may_follow_the_gpus(
    monkeypatch: pytest.MonkeyPatch, value: str, workers: int | None
) -> None:
    monkeypatch.setenv("LOSSD_WORKERS", value)
    assert Settings().workers == workers


@pytest.mark.parametrize(("name", "value"), ABSURD)
def test_absurd_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(variable(name), value)
    with pytest.raises(ValidationError) as raised:
        Settings()
    assert [error["loc"] for error in raised.value.errors()] == [(name,)]


def test_every_number_has_an_upper_bound() -> None:
    schema = Settings.model_json_schema()["properties"]
    unbounded = [
        name
        for name, entry in schema.items()
        if entry.get("type") in ("integer", "number") and "maximum" not in entry
    ]
    assert not unbounded


def test_names_that_are_no_settings_are_told_with_the_nearest() -> None:
    warnings = unknown(["LOSSD_PORT", "lossd_port", "PATH", "LOSSD_CORS_ORIGIN", "lossd_thread"])
    assert [(line.split()[0], line.split()[-1]) for line in warnings] == [
        ("LOSSD_CORS_ORIGIN", "LOSSD_CORS_ORIGINS."),
        ("lossd_thread", "LOSSD_THREADS."),
    ]
