"""The command line: its output, and its exit status on errors."""

import json
from pathlib import Path

import pytest

from service import VERSION
from service.admission.keys import KeyFile
from service.cli import main


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.jsonl"
    monkeypatch.setenv("LOSSD_API_KEYS_FILE", str(path))
    return path


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"lossd {VERSION}\n")


def test_keys_are_made_listed_and_revoked(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["key", "new", "--name", "ci"])
    main(["key", "new", "training"])
    ci, training = capsys.readouterr().out.split()
    main(["key", "list"])
    listed = capsys.readouterr().out
    assert [json.loads(line) for line in listed.splitlines()] == [{"name": "ci"}, {"name": "training"}]
    assert ci not in listed
    main(["key", "revoke", "ci"])
    left = KeyFile(keys)
    assert left.find(ci.encode()) is None
    found = left.find(training.encode())
    assert found is not None and found.name == "training"
    main(["key", "revoke", "--name", "training"])
    capsys.readouterr()
    main(["key", "list"])
    assert capsys.readouterr().out == ""


def test_a_limit_of_a_keys_own_is_listed_and_stays(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.write_text(json.dumps({"name": "a", "sha256": "0" * 64, "rate": 5, "concurrency": 2}) + "\n")
    main(["key", "new", "b"])
    main(["key", "revoke", "b"])
    capsys.readouterr()
    main(["key", "list"])
    assert json.loads(capsys.readouterr().out) == {"name": "a", "rate": 5, "concurrency": 2}


def test_a_key_that_is_not_there_cannot_be_revoked(keys: Path) -> None:
    main(["key", "new", "ci"])
    before = keys.read_bytes()
    with pytest.raises(SystemExit, match=r"\(ci\); got 'c1'"):
        main(["key", "revoke", "c1"])
    assert keys.read_bytes() == before


@pytest.mark.parametrize("action", [["list"], ["revoke", "a"]])
def test_a_file_that_is_not_there_is_told(keys: Path, action: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"LOSSD_API_KEYS_FILE|\(none\)"):
        main(["key", *action])
    assert not keys.exists()


@pytest.mark.parametrize("action", [["list"], ["new", "a"], ["revoke", "a"]])
def test_without_the_setting_there_is_no_file(monkeypatch: pytest.MonkeyPatch, action: list[str]) -> None:
    monkeypatch.delenv("LOSSD_API_KEYS_FILE", raising=False)
    with pytest.raises(
        SystemExit, match="LOSSD_API_KEYS_FILE: Expected the path of the file of keys; it is not set"
    ):
        main(["key", *action])
