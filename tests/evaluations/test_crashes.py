"""Servers and databases that are killed in the middle: what was acknowledged stays, and retries end with exact counts."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.servers import free_port
from service.problems import Unavailable
from tests.evaluations.parts import answer_of, part_of, rows_of, spec_of, store_at
from tests.evaluations.postgres import Postgres

SPEC = {
    "task": "multiclass",
    "num_classes": 4,
    "columns": {"predictions": "logits", "targets": "label", "id": "id", "slices": ["group"], "weight": "w"},
    "metrics": ["accuracy", {"loss": "cross_entropy"}],
    "expect": 300,
}
PARTS = 60
"""Each brings five rows of its own, and the five of the next one."""


class Killed:
    """A server that is killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._env = {**os.environ, "LOSSD_DEVICE": "cpu", "LOSSD_DATA_DIR": str(folder)}
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "service", "serve", "--port", str(self.port)]
        nowhere = subprocess.DEVNULL
        self.process = subprocess.Popen(command, env=self._env, stdout=nowhere, stderr=nowhere)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def rows_of_part(place: int) -> dict[str, list[Any]]:
    """Return the columns of a part."""
    return rows_of([one % 300 for one in range(5 * place, 5 * place + 10)])


def insist(ask: Callable[[httpx.Client], httpx.Response], pause: threading.Event) -> httpx.Response:
    """Send a request until it is answered."""
    while True:
        try:
            with httpx.Client(timeout=30) as client:
                found = ask(client)
            if found.status_code < 500:
                assert found.status_code in (200, 201), found.text
                return found
        except httpx.TransportError:
            pass
        pause.wait(0.05)


@contextmanager
def two_servers(folder: Path) -> Generator[list[Killed]]:
    """Run two servers on one file."""
    servers = [Killed(folder), Killed(folder)]
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.mark.server
@pytest.mark.timeout(400)
def test_servers_killed_in_the_middle_lose_and_repeat_nothing(tmp_path: Path) -> None:
    acknowledged, pause = threading.Semaphore(0), threading.Event()
    with two_servers(tmp_path) as servers:
        insist(lambda client: client.put(f"{servers[0].url}/v1/evaluations/val", json=SPEC), pause)

        def send(place: int) -> None:
            turn = itertools.count(place)
            body = rows_of_part(place)

            def ask(client: httpx.Client) -> httpx.Response:
                url = servers[next(turn) % 2].url
                return client.put(f"{url}/v1/evaluations/val/parts/{place}", json=body)

            insist(ask, pause)
            acknowledged.release()

        with ThreadPoolExecutor(4) as clients:
            sending = [clients.submit(send, place) for place in range(PARTS)]
            for killed in servers:
                for _ in range(PARTS // 4):
                    acknowledged.acquire()
                killed.kill()
                killed.start()
            for one in sending:
                one.result()
        answers = [
            insist(lambda client, url=server.url: client.get(f"{url}/v1/evaluations/val"), pause).json()
            for server in servers
        ]
    assert answers[0] == answers[1]
    assert (answers[0]["rows"], answers[0]["complete"]) == (300, True)
    undisturbed = store_at(f"sqlite:///{tmp_path}/other.sqlite")
    spec = spec_of(expect=300)
    entry = undisturbed.create("", "val", spec).result().entry
    undisturbed.put("", entry, spec, "all", part_of(spec, "all", rows_of(range(300)))).result()
    from service.evaluations.results import Selection, results_of
    from service.wire.evaluation_answers import results_answer

    results = results_of(undisturbed.merged(undisturbed.entry("", "val")), Selection(spec.measures))
    assert results_answer("val", spec, results) == answers[0]
    undisturbed.close()


def test_a_database_that_crashes_loses_and_repeats_nothing(postgresql: Postgres) -> None:
    spec, name = spec_of(), uuid.uuid4().hex
    stores = [store_at(postgresql.url) for _ in range(2)]
    entry = stores[0].create("", name, spec).result().entry
    acknowledged, pause = threading.Semaphore(0), threading.Event()

    def send(place: int) -> None:
        key, part = str(place), part_of(spec, str(place), rows_of_part(place))
        for turn in itertools.count(place):
            try:
                stores[turn % 2].put("", entry, spec, key, part).result()
                break
            except Unavailable:
                pause.wait(0.05)
        acknowledged.release()

    with ThreadPoolExecutor(4) as clients:
        sending = [clients.submit(send, place) for place in range(PARTS)]
        for _ in range(2):
            for _ in range(PARTS // 4):
                acknowledged.acquire()
            postgresql.stop("immediate")
            postgresql.start()
        for one in sending:
            one.result()
    assert {store.entry("", name).rows for store in stores} == {300}
    assert len({answer_of(store, "", name, spec) for store in stores}) == 1
    for store in stores:
        store.close()
