"""The directory of the workers' metrics: removed with its server; the next one removes what a killed one left."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from service.telemetry import shared

MADE = "from service.telemetry import shared; made = shared.directory(); print(made.__enter__(), flush=True)"


def found(place: Path) -> list[Path]:
    return list(place.glob(f"{shared.PREFIX}*"))


def test_it_is_there_for_the_time_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with shared.directory() as made:
        assert found(tmp_path) == [made]
    assert found(tmp_path) == []


def test_what_a_killed_server_left_is_removed_and_what_a_running_one_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = subprocess.Popen([sys.executable, "-c", f"{MADE}; input()"], stdin=-1, stdout=-1, text=True)
    assert other.stdout
    theirs = Path(other.stdout.readline().strip())
    (theirs / "counter_1.db").write_bytes(b"1")
    with shared.directory():
        assert theirs.exists()
    other.kill()
    other.communicate()
    assert theirs.exists()
    with shared.directory() as made:
        assert found(tmp_path) == [made]


def test_nothing_of_others_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    aim = tmp_path / "aim"
    aim.mkdir()
    (tmp_path / f"{shared.PREFIX}link").symlink_to(aim)
    (tmp_path / f"{shared.PREFIX}file").write_text("")
    with shared.directory():
        pass
    assert aim.exists()
    assert len(found(tmp_path)) == 2


@pytest.mark.parametrize("place", ["missing", "file"])
def test_without_a_place_there_is_none_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path / place))
    with shared.directory() as made:
        assert made is None
    assert "serving without metrics" in caplog.text


def test_a_worker_without_room_keeps_none_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full."""
    code = (
        "import os; from pathlib import Path; from service.telemetry import shared; "
        f"shared.join(Path({str(tmp_path)!r})); print(shared.DIRECTORY in os.environ)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "False\n"
    assert "serving without metrics" in ended.stderr
    assert os.listdir(tmp_path) == []


def test_all_series_there_can_be_fit_into_what_a_worker_takes(tmp_path: Path) -> None:
    """Beyond it the files would grow, and on a full disk kill their process."""
    code = (
        "from pathlib import Path; from service.telemetry import shared; "
        f"shared.join(Path({str(tmp_path)!r})); "
        "from service.losses import CATALOGUE; from service.metrics import METRICS; from service.routes import ROUTES, OTHER; from service.telemetry.metrics import Metrics\n"
        "metrics = Metrics()\n"
        "statuses = (200, 400, 401, 404, 405, 408, 413, 415, 422, 429, 431, 499, 500, 503, 504)\n"
        "for route in (*ROUTES, OTHER):\n"
        "    for loss in ('', 'unknown', *(METRICS if route.door == 'measure' else CATALOGUE)) if route.named else ('',):\n"
        "        for status in statuses: metrics.requests.labels(route.label, loss, status)\n"
        "    for stage in ('total', 'decode', 'queue', 'compute', 'encode'): metrics.durations.labels(route.label, stage)\n"
        "for loss in ('unknown', *CATALOGUE):\n"
        "    for status in statuses: metrics.items.labels(loss, status)\n"
        "for loss in CATALOGUE: metrics.nonfinite.labels(loss)\n"
        "for number in range(100):\n"
        "    for status in statuses: metrics.key_requests.labels('k' * 64 + str(number), str(status))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    sizes = {path.name.rpartition("_")[0]: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == shared.SIZES
