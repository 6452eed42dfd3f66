"""Attack a real server for minutes, and report the results at the end.

A failure is reported with a minimal request that causes it, and the attack continues.
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks import servers
from tests.fuzz.attacks import ATTACKS, Attacker
from tests.fuzz.doors import Live

EXAMPLES = {"evaluations": 300, "batches": 80, "streams": 50, "frames": 150, "megabytes": 10}
"""Requests of a kind until it is the next one's turn."""


def main() -> None:
    """Run the attack; exit with 1 if something was found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with servers.lossd(env={"LOSSD_DEVICE": "cpu"}, log=log) as server:
            found = _attack(server, chosen.minutes * 60, chosen.seed)
        broke = [line for line in log.read_text().splitlines() if '"level":"error"' in line]
    for line in broke[:20]:
        print(f"log: {line[:2000]}")
    for failure in found:
        print(f"found: {failure}\n")
    print(f"{len(found)} things found, {len(broke)} errors in the log")
    sys.exit(bool(found or broke))


def _attack(server: servers.Server, seconds: float, start: int) -> list[str]:
    """Attack until the time is up, and return the findings."""
    attacker = Attacker(Live(server.url))
    failures: dict[str, str] = {}
    before, end, rounds = _resident(server.process), monotonic() + seconds, 0
    first = halfway = 0.0
    while monotonic() < end:
        for kind in ATTACKS:
            try:
                _round(attacker, kind, start + rounds, end)
            except AssertionError as error:
                message = f"{kind}: {error}".partition("\n")[0]
                failures.setdefault(
                    message[:80], "\n".join([message, *getattr(error, "__notes__", ())])[:4000]
                )
        rounds += 1
        # by then everything that stays in memory is loaded
        first = first or _resident(server.process)
        if monotonic() < end - seconds / 2:
            halfway = _resident(server.process)
    after = _resident(server.process)
    counted = attacker.counted
    print(f"{counted.total()} requests in {rounds} rounds, and as many good ones between them")
    for kind in ATTACKS:
        statuses = {status: count for (of, status), count in sorted(counted.items()) if of == kind}
        print(f"  {kind}: {', '.join(f'{count} x {status}' for status, count in statuses.items())}")
    totals = Counter[int]()
    for (_, status), count in counted.items():
        totals[status] += count
    print(f"  all: {', '.join(f'{count} x {status}' for status, count in sorted(totals.items()))}")
    slowest, size, path = attacker.slowest
    print(f"slowest: {slowest:.2f} s, {size:,} bytes to {path}")
    print(
        f"resident MB: {before:.0f} before, {first:.0f} after a round, {halfway:.0f} halfway, {after:.0f} after all"
    )
    return [*failures.values()]


def _round(attacker: Attacker, kind: str, number: int, end: float) -> None:
    """Make the requests of a kind whose turn it is, drawn from the seed of that number."""
    strategy, attack = ATTACKS[kind]

    @seed(number)
    @settings(
        max_examples=EXAMPLES[kind],
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        report_multiple_bugs=False,
    )
    @given(strategy)
    def attacked(made: Any) -> None:
        if monotonic() < end:
            attack(attacker, made)

    attacked()


def _resident(process: int) -> float:
    """Return the megabytes that a process has in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
