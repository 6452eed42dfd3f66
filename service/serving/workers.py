"""The processes that serve, where there are several: one that dies or hangs is replaced, all end together."""

import logging
import os
import signal
import socket
from contextlib import suppress
from time import monotonic

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

logger = logging.getLogger("lossd")
HANGS_S = 60.0
"""Seconds without a heartbeat before a worker counts as hung, and is replaced."""
JOIN_S = 0.1
"""Seconds between looks at whether a worker has ended."""


class Workers(Multiprocess):
    """Processes that serve: one that dies is replaced at once, one that hangs after `HANGS_S`; all are told to end.

    Uvicorn's own watch waits for one worker's word at a time, and for long where that one has just died.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._asked: dict[Process, float] = {}

    def keep_subprocess_alive(self) -> None:
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set() or self._is_well(worker):
                continue
            self._asked.pop(worker, None)
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                # another would not start either
                self.should_exit.set()
                return
            logger.warning("worker %s died and is replaced", worker.pid)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()

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
