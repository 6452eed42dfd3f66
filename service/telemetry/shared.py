"""The directory in which workers share their metrics, so that each can answer for all.

Metrics are memory-mapped files, and a write to a mapped file on a full disk kills the process. So each worker allocates
its files before it starts; without enough space it serves without metrics and logs a warning.
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
"""Environment variable with the directory; prometheus_client reads it at import."""
SIZES = {"counter": 4 << 20, "histogram": 1 << 20, "gauge_livesum": 1 << 16, "gauge_livemax": 1 << 16}
"""Bytes of a worker's files by metric type: more than all series of the catalogue need."""


@contextmanager
def directory() -> Generator[Path | None]:
    """Create the directory for the time of the ``with``; None if that fails."""
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
    """Keep this process's metrics there, if there is space; call it before prometheus_client is imported."""
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
    """Log why there are no metrics."""
    logger.warning("serving without metrics: workers cannot share a directory in TMPDIR: %s", error)


def _made(place: Path) -> tuple[Path, int]:
    """Create a directory and hold its lock for the life of this process."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        lock = _locked(made)
        if lock is not None and made.exists():
            return made, lock
        # another server that is just starting took it for abandoned


def _remove_abandoned(place: Path) -> None:
    """Remove the directories of killed servers, whose locks are gone."""
    for found in place.glob(f"{PREFIX}*"):
        lock = _locked(found)
        if lock is not None:
            shutil.rmtree(found, ignore_errors=True)
            os.close(lock)


def _locked(made: Path) -> int | None:
    """Lock a directory of this user; None if another process holds the lock, or the directory is gone."""
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
