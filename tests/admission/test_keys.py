"""The file of keys: adding, reading and reloading."""

import json
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from service.admission import keys
from service.admission.keys import KeyFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def test_a_new_key_is_found_and_only_its_digest_is_kept(path: Path) -> None:
    token = keys.new(path, "ci")
    assert token not in path.read_text()
    assert json.loads(path.read_text()) == {"name": "ci", "sha256": sha256(token.encode()).hexdigest()}
    found = KeyFile(path).find(token.encode())
    assert found and found.name == "ci"


def test_the_file_is_for_its_owner_alone_and_keeps_the_mode_it_is_given(path: Path) -> None:
    keys.new(path, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    keys.new(path, "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_what_a_link_leads_to_is_written_and_the_link_stays(path: Path) -> None:
    target = path.parent / "mounted.jsonl"
    keys.new(target, "a")
    path.symlink_to(target)
    keys.new(path, "b")
    assert path.is_symlink()
    assert KeyFile(target).count == 2


def test_keys_added_at_once_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: keys.new(path, f"k{number}"), range(40)))
    assert KeyFile(path).count == 40


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a\n", 'a"'])
def test_a_name_is_a_short_label(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 letters"):
        keys.new(path, name)
    assert not path.exists()


def test_a_name_is_not_given_twice(path: Path) -> None:
    keys.new(path, "ci")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="'ci'"):
        keys.new(path, "ci")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"name": "b"}', "at sha256"),
        ('{"name": "b", "sha256": "ab"}', "at sha256"),
        ('{"name": "b c", "sha256": "%s"}' % ("0" * 64), "at name"),
        ('{"name": "b", "sha256": "%s", "rat": 1}' % ("0" * 64), "at rat"),
        ('{"name": "b", "sha256": "%s", "rate": -1}' % ("0" * 64), "at rate"),
        ('{"name": "b", "sha256": "%s", "concurrency": 1.5}' % ("0" * 64), "at concurrency"),
        ('{"name": "a", "sha256": "%s"}' % ("0" * 64), "again"),
    ],
)
def test_a_broken_line_is_told_and_stays_out_of_the_message(path: Path, line: str, words: str) -> None:
    keys.new(path, "a")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=words) as raised:
        KeyFile(path)
    assert str(raised.value).startswith("LOSSD_API_KEYS_FILE: ")
    assert "000" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused_with_words(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="LOSSD_API_KEYS_FILE: "):
        KeyFile(path)


def test_a_changed_file_is_read_again_and_a_broken_or_missing_one_leaves_the_keys(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "CHECK_S", 0)
    first = keys.new(path, "first").encode()
    file = KeyFile(path)
    second = keys.new(path, "second").encode()
    assert file.find(second)
    good = path.read_bytes()
    path.write_text("{")
    assert file.find(first) and file.find(second)
    path.unlink()
    assert file.find(first) and file.find(second)
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 2, "once for each change"
    path.write_bytes(good.splitlines(keepends=True)[1])
    assert file.find(second)
    assert not file.find(first), "a key that was taken out is no longer one"


def test_the_file_is_looked_at_once_a_second_at_most(path: Path) -> None:
    first = keys.new(path, "first").encode()
    file = KeyFile(path)
    path.unlink()
    second = keys.new(path, "second").encode()
    assert file.find(first)
    assert not file.find(second)
    time.sleep(keys.CHECK_S)
    assert file.find(second)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_the_key_alone(path: Path) -> None:
    ended = run("key", "new", "--name", "ci", LOSSD_API_KEYS_FILE=str(path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert KeyFile(path).find(ended.stdout.removesuffix("\n").encode())


@pytest.mark.parametrize("name", ["ci", "a b"])
def test_the_command_refuses_with_words(path: Path, name: str) -> None:
    keys.new(path, "ci")
    ended = run("key", "new", "--name", name, LOSSD_API_KEYS_FILE=str(path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Expected a name")


def test_the_command_needs_the_setting_and_a_directory_that_is_there(path: Path) -> None:
    for place in ("", str(path / "nowhere" / "keys")):
        ended = run("key", "new", "--name", "ci", LOSSD_API_KEYS_FILE=place)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("LOSSD_API_KEYS_FILE: ")
        assert "Traceback" not in ended.stderr


def test_a_server_does_not_start_without_its_file(path: Path) -> None:
    ended = run("serve", "--port", "0", LOSSD_API_KEYS_FILE=str(path))
    assert ended.returncode == 1
    assert ended.stderr.startswith("LOSSD_API_KEYS_FILE: ")
    assert "Traceback" not in ended.stderr


def special(path: Path, kind: str) -> Path:
    """Return a path at which there is something else than a file of keys."""
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    return Path("/dev/zero") if kind == "device" else path


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "huge"])
def test_what_is_no_file_of_keys_is_refused_and_not_waited_for(path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="LOSSD_API_KEYS_FILE: Expected a file of keys"):
        keys.read(special(path, kind))


def test_a_file_that_becomes_a_pipe_leaves_the_keys_as_they_were(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "CHECK_S", 0)
    token = keys.new(path, "ci")
    known = KeyFile(path)
    path.unlink()
    os.mkfifo(path)
    assert known.find(token.encode())
