"""Which configuration a worker has, and the one that replaces it: a GPU stays with its place."""

from typing import Any, ClassVar

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from service.serving import workers
from service.serving.server import Config
from service.serving.workers import Workers
from service.settings import Settings


class Pretended:
    """Stands in for a worker's process, which ends when the test says so."""

    made: ClassVar[list["Pretended"]] = []

    def __init__(self, config: uvicorn.Config, sockets: list[Any]) -> None:
        self.config = config
        self.process = self
        self.pid, self.exitcode = len(self.made), None
        self.parent_conn = self
        self.alive = False
        self.made.append(self)

    def start(self) -> None:
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def poll(self, seconds: float) -> bool:
        return False

    def send(self, word: bytes) -> None: ...
    def kill(self) -> None: ...
    def join(self) -> None: ...

    def die(self, exitcode: int) -> None:
        self.alive, self.exitcode = False, exitcode  # type: ignore[assignment]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    monkeypatch.setattr(Pretended, "made", [])
    monkeypatch.setattr(workers, "Process", Pretended)
    monkeypatch.setattr("uvicorn.supervisors.multiprocess.signal.signal", lambda *args: None)
    return Pretended.made


def started() -> Workers:
    configs = [Config(Settings(device="cpu"), 3, worker) for worker in range(3)]
    supervisor = Workers(configs, [])
    supervisor.init_processes()
    return supervisor


def places(processes: list[Any]) -> list[int]:
    """Return which worker each process is."""
    return [process.config.app.args[1] for process in processes]


def test_a_worker_that_dies_is_replaced_by_one_for_the_same_gpu(made: list[Pretended]) -> None:
    supervisor = started()
    assert places(made) == [0, 1, 2]
    made[1].die(70)
    supervisor.keep_subprocess_alive()
    assert places(supervisor.processes) == [0, 1, 2]
    assert supervisor.processes[1] is made[3]
    assert made[3].alive


def test_a_worker_that_cannot_start_ends_all_at_the_start_alone(made: list[Pretended]) -> None:
    """A single GPU that breaks later does not take the others with it."""
    supervisor = started()
    made[1].die(70)
    supervisor.keep_subprocess_alive()
    made[3].die(STARTUP_FAILURE)
    supervisor.keep_subprocess_alive()
    assert not supervisor.failed
    made[2].die(STARTUP_FAILURE)
    supervisor.keep_subprocess_alive()
    assert supervisor.failed
    assert supervisor.should_exit.is_set()


def test_signals_that_would_change_the_number_of_workers_do_nothing(made: list[Pretended]) -> None:
    supervisor = started()
    for handle in (supervisor.handle_hup, supervisor.handle_ttin, supervisor.handle_ttou):
        handle()
    assert supervisor.processes == made
    assert len(made) == 3
