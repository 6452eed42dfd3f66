"""Print the effect of attacks on a server: the latency of other clients meanwhile, and the memory it takes.

``python -m benchmarks.attacks [--only NAME] [--python PATH --cwd PATH]``; the last two name another version's
interpreter and checkout, to compare. During each attack one client calls ``mse`` on a persistent connection, and another
requests ``/healthz`` every 10 ms. Each attack has its own server, with the default limits except ``ENVIRONMENT``.
"""

import argparse
import multiprocessing
import os
import signal
import socket
import statistics
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import servers
from benchmarks.hostile import ATTACKS, JSON, Target, receive, request
from benchmarks.load import peak, resident

ENVIRONMENT = {"LOSSD_DEVICE": "cpu", "LOSSD_IDLE_S": "3", "LOSSD_DRAIN_S": "2"}
SMALL = request("/v1/losses/mse", b'{"inputs":{"predictions":[1],"targets":[3]}}', JSON)
ALIVE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
SECONDS = 8.0
"""Seconds after which an attack gives up."""
PATIENCE_S = 30.0
"""Seconds to wait for the last answers during an attack."""
SETTLE_S = 5.0
"""Seconds before memory is measured again: longer than `LOSSD_IDLE_S` here, after which clients are dropped."""
END_S = 20.0
"""Seconds between SIGTERM and SIGKILL."""
MB = 1e6


class Probe(threading.Thread):
    """Sends requests over one connection, one after another, and records the times of the answers."""

    def __init__(self, target: Target, call: bytes, pause: float) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.call = call
        self.pause = pause
        self.seconds: list[float] = []
        self.failures = 0
        self.answered = [time.monotonic()]
        self._stopped = threading.Event()
        self._connection: socket.socket | None = None

    def run(self) -> None:
        while not self._stopped.is_set():
            start = time.monotonic()
            try:
                ok = self._ask()
            except OSError:
                ok, self._connection = False, None
            now = time.monotonic()
            self.seconds.append(now - start)
            if ok:
                self.answered.append(now)
            else:
                self.failures += 1
            time.sleep(self.pause)

    def stop(self) -> None:
        """Wait for the last answer."""
        self._stopped.set()
        self.join(PATIENCE_S)
        self.answered.append(time.monotonic())

    @property
    def silence(self) -> float:
        """The longest time without a good answer."""
        pairs = zip(self.answered, self.answered[1:], strict=False)
        return max(later - earlier for earlier, later in pairs) - self.pause

    def _ask(self) -> bool:
        """Send one request; return whether the answer is a 200."""
        if self._connection is None:
            self._connection = socket.create_connection((self.target.host, self.target.port), PATIENCE_S)
        self._connection.sendall(self.call)
        return receive(self._connection) == "200"


def measure(name: str, python: str, cwd: Path | None) -> str:
    """Attack a server; return a row of the table."""
    with servers.lossd(env=ENVIRONMENT, python=python, cwd=cwd) as server:
        host, port = server.url.removeprefix("http://").split(":")
        before = resident(server.process)
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        attacker = context.Process(target=_attack, args=(name, host, int(port), theirs), daemon=True)
        attacker.start()
        ours.recv()
        small, alive = (Probe(Target(host, int(port)), call, 0.01) for call in (SMALL, ALIVE))
        for probe in (small, alive):
            probe.start()
        ours.send("go")
        statuses = ours.recv() if ours.poll(SECONDS + PATIENCE_S) else {"hangs": 1}
        # the attacker's open connections are dropped meanwhile, or kept for good
        time.sleep(SETTLE_S)
        most, after = peak(server.process), resident(server.process)
        for probe in (small, alive):
            probe.stop()
        attacker.kill()
        ended = seconds_to_end(server.process)
    told = " ".join(f"{status}×{count}" for status, count in sorted(statuses.items()))
    times = [1e3 * statistics.median(small.seconds), 1e3 * max(small.seconds)]
    row = f"| {name} | {times[0]:.1f} | {times[1]:.0f} | {small.failures} of {len(small.seconds)} "
    row += f"| {alive.silence:.2f} | {before / MB:.0f} | {most / MB:.0f} | {after / MB:.0f} "
    return row + f"| {ended} | {told or '–'} |"


def seconds_to_end(process: int) -> str:
    """Stop a server; return the seconds it took."""
    os.kill(process, signal.SIGTERM)
    start = time.monotonic()
    while time.monotonic() - start < END_S:
        # an ended process stays a zombie until its parent waits for it
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return f"{time.monotonic() - start:.1f}"
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return "killed"


def _attack(name: str, host: str, port: int, parent: Connection) -> None:
    """Prepare an attack, wait for the signal, attack, and report the statuses of the answers."""
    run = ATTACKS[name]()
    parent.send("ready")
    parent.recv()
    target = Target(host, port, time.monotonic() + SECONDS)
    run(target)
    parent.send(dict(target.statuses))


def main() -> None:
    """Measure each attack, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks")
    parser.add_argument("--only", action="append", help="a part of the names of attacks to run")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the server")
    parser.add_argument("--cwd", type=Path, help="the checkout of the server")
    chosen = parser.parse_args()
    print(
        "| attack | small call, median ms | worst ms | not 200 | /healthz silent, s "
        "| MB before | peak | after | SIGTERM to end, s | answers |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
    for name in ATTACKS:
        if not chosen.only or any(part in name for part in chosen.only):
            print(measure(name, chosen.python, chosen.cwd), flush=True)


if __name__ == "__main__":
    main()
