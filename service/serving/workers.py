"""The processes that serve, where there are several: one that dies or hangs is replaced, all end together."""

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
"""Seconds without a heartbeat before a worker counts as hung, and is replaced."""
JOIN_S = 0.1
"""Seconds between looks at whether a worker has ended."""
SOON_S = 10.0
"""A worker that lived for less may die again: its replacement waits, each time longer."""
LONGEST_WAIT_S = 30.0
END_S = 5.0
"""Seconds that a worker without a parent has for its end, beyond those in which it drains."""


@dataclass
class Life:
    """When a worker began, and if it has died, when its replacement begins: at once, unless many die soon."""

    began: float
    replace_at: float | None = None
    soon: int = 0
    """Workers in a row that died soon."""
    first: bool = True
    """Whether no worker has been replaced."""

    def end(self) -> float:
        """Note that the worker has died; return the seconds after which it is replaced."""
        now = monotonic()
        self.soon = self.soon + 1 if now - self.began < SOON_S else 0
        wait = min(LONGEST_WAIT_S, 2.0 ** (self.soon - 2)) if self.soon > 1 else 0.0
        self.replace_at = now + wait
        return wait

    def may_begin(self) -> bool:
        """Return whether the replacement may begin, which it then does."""
        now = monotonic()
        if self.replace_at is None or now < self.replace_at:
            return False
        self.began, self.replace_at, self.first = now, None, False
        return True


class Workers(Multiprocess):
    """Processes that serve, each with a configuration of its own: they know which GPU they take.

    One that dies is replaced at once by another of its configuration, one that hangs after `HANGS_S`. Uvicorn's own
    watch waits for one worker's word at a time, and for long where that one has just died.
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
        """Do nothing: keys are read again by themselves, and other settings need another start."""

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
                    logger.critical("worker %s cannot start: all workers end", worker.pid)
                    self.failed = True
                    self.should_exit.set()
                    return
                wait = life.end()
                logger.warning(
                    "worker %s died (%s) and is replaced in %g s", worker.pid, _cause(worker.exitcode), wait
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
        """Tell whether a worker lives, and has answered lately; ask it again if it has answered."""
        if not worker.process.is_alive():
            return False
        # one that has just died is seen next time
        with suppress(OSError, EOFError):
            if worker.parent_conn.poll(0):
                worker.parent_conn.recv()
                del self._asked[worker]
            if worker not in self._asked:
                worker.parent_conn.send(b"ping")
                self._asked[worker] = monotonic()
        return monotonic() - self._asked.get(worker, monotonic()) <= HANGS_S


def _cause(exitcode: int | None) -> str:
    """Say how a worker ended."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    return signal.Signals(-exitcode).name


def end_with_parent(drain_s: float, shared: Path | None) -> None:
    """Let this worker drain and end if its parent is killed, and remove what workers share: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        logger.error("the process that started this worker is gone: the worker ends")
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(drain_s + END_S)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=wait, name="parent", daemon=True).start()
