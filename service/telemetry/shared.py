"""The directory in which several workers keep their metrics, so that each can answer for all.

Metrics are mapped files, and a write to a mapped file on a full disk kills its process. So each worker takes the room
for its files before it begins; where there is none, it serves without metrics, and says so.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger("lossd")
PREFIX = "lossd-metrics-"
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the directory; prometheus_client reads it when it is imported."""
SIZES = {"counter": 4 << 20, "histogram": 1 << 20, "gauge_livesum": 1 << 16, "gauge_livemax": 1 << 16}
"""Bytes of a worker's files by the kind of their metrics: more than all series of the catalogue take."""


@contextmanager
def directory() -> Generator[Path | None]:
    """Make the directory for the time of the ``with``; None where there can be none."""
    place = Path(os.environ.get("TMPDIR") or "/tmp")
    _remove_abandoned(place)
    try:
        made, lock = _made(place)
    except OSError as error:
        _tell_why(error)
        yield None
        return
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def join(made: Path) -> None:
    """Keep the metrics of this process there, if there is room; before prometheus_client is imported."""
    files = {made / f"{kind}_{os.getpid()}.db": size for kind, size in SIZES.items()}
    try:
        for file, size in files.items():
            file.write_bytes(bytes(size))
    except OSError as error:
        for file in files:
            file.unlink(missing_ok=True)
        _tell_why(error)
    else:
        os.environ[DIRECTORY] = str(made)


def _tell_why(error: OSError) -> None:
    """Say that there are no metrics."""
    logger.warning("serving without metrics, which several workers share in a directory of TMPDIR: %s", error)


def _made(place: Path) -> tuple[Path, int]:
    """Make a directory, and hold its lock for as long as this process lives."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        lock = _locked(made)
        if lock is not None and made.exists():
            return made, lock
        # another server, which starts now too, took it for abandoned


def _remove_abandoned(place: Path) -> None:
    """Remove what servers that were killed have left: their locks went with them."""
    for found in place.glob(f"{PREFIX}*"):
        lock = _locked(found)
        if lock is not None:
            shutil.rmtree(found, ignore_errors=True)
            os.close(lock)


def _locked(made: Path) -> int | None:
    """Lock a directory of this user; None if another process holds the lock, or there is no such directory."""
    with suppress(OSError):
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
    return None
