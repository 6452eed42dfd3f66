"""Worker processes: a worker that dies or hangs is replaced, and all stop together."""

import logging
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

logger = logging.getLogger("lossd")
HANGS_S = 60.0
"""Seconds without a heartbeat before a worker counts as hung and is replaced."""
JOIN_S = 0.1
"""Seconds between checks whether a worker has ended."""
SOON_S = 10.0
"""Seconds. The replacement of a worker that lived less than this is delayed, each time longer."""
LONGEST_WAIT_S = 30.0
END_S = 5.0
"""Seconds that a worker without a parent has to stop, in addition to its draining."""


@dataclass
class Life:
    """When a worker started and, if it died, when its replacement starts: at once, unless workers keep dying early."""

    began: float
    replace_at: float | None = None
    soon: int = 0
    """Workers in a row that died early."""
    first: bool = True
    """Whether it is still the original worker."""

    def end(self) -> float:
        """Note that the worker has died; return the delay of its replacement in seconds."""
        now = monotonic()
        self.soon = self.soon + 1 if now - self.began < SOON_S else 0
        wait = min(LONGEST_WAIT_S, 2.0 ** (self.soon - 2)) if self.soon > 1 else 0.0
        self.replace_at = now + wait
        return wait

    def may_begin(self) -> bool:
        """Return whether the replacement may start; if so, it counts as started."""
        now = monotonic()
        if self.replace_at is None or now < self.replace_at:
            return False
        self.began, self.replace_at, self.first = now, None, False
        return True


class Workers(Multiprocess):
    """Worker processes, each with its own configuration, which selects its GPU.

    A dead worker is replaced at once by one with the same configuration, a hung one after `HANGS_S`. Uvicorn's own
    supervisor checks one worker after another, and blocks for long on one that has just died.
    """

    def __init__(self, configs: Sequence[uvicorn.Config], sockets: list[socket.socket]) -> None:
        super().__init__(configs[0], sockets)
        self.failed = False
        self._configs = configs
        self._asked: dict[Process, float] = {}
        self._lives = [Life(monotonic()) for _ in configs]

    def init_processes(self) -> None:
        self.processes = [self._started(place) for place in range(len(self._configs))]

    def _started(self, place: int) -> Process:
        """Start a worker."""
        worker = Process(self._configs[place], self.sockets)
        worker.start()
        return worker

    def handle_hup(self) -> None:
        """Do nothing: keys are reloaded anyway, and other settings need a restart."""

    handle_ttin = handle_ttou = handle_hup

    def keep_subprocess_alive(self) -> None:
        for place, (worker, life) in enumerate(zip(self.processes, self._lives, strict=True)):
            if self.should_exit.is_set() or self._is_well(worker):
                continue
            if life.replace_at is None:
                self._asked.pop(worker, None)
                worker.kill()
                worker.join()
                if worker.exitcode == STARTUP_FAILURE and life.first:
                    # another would not start either
                    logger.critical("worker %s cannot start: stopping all workers", worker.pid)
                    self.failed = True
                    self.should_exit.set()
                    return
                wait = life.end()
                logger.warning(
                    "worker %s died (%s); replacing it in %g s", worker.pid, _cause(worker.exitcode), wait
                )
            if life.may_begin():
                self.processes[place] = self._started(place)

    def join_all(self) -> None:
        for worker in self.processes:
            while worker.process.is_alive():
                worker.process.join(JOIN_S)
                if signal.SIGTERM in self.signal_queue:
                    self.signal_queue.clear()
                    for other in self.processes:
                        if other.process.is_alive() and other.pid is not None:
                            os.kill(other.pid, signal.SIGTERM)

    def _is_well(self, worker: Process) -> bool:
        """Return whether a worker is alive and has answered lately; send the next ping if it has."""
        if not worker.process.is_alive():
            return False
        # a worker that has just died is noticed in the next round
        with suppress(OSError, EOFError):
            if worker.parent_conn.poll(0):
                worker.parent_conn.recv()
                del self._asked[worker]
            if worker not in self._asked:
                worker.parent_conn.send(b"ping")
                self._asked[worker] = monotonic()
        return monotonic() - self._asked.get(worker, monotonic()) <= HANGS_S


def _cause(exitcode: int | None) -> str:
    """Describe how a worker ended."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    return signal.Signals(-exitcode).name


def end_with_parent(drain_s: float, shared: Path | None) -> None:
    """Drain and stop this worker if its parent is killed, and remove the workers' shared directory."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        logger.error("the parent process is gone: stopping this worker")
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(drain_s + END_S)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=wait, name="parent", daemon=True).start()
