"""Attacks: one kind of request each, with the invariants that must hold."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import strategies as st

from tests.fuzz import requests
from tests.fuzz.doors import Answer, Door, Sent
from tests.fuzz.invariants import check

JSON = {"content-type": "application/json"}
WELL = [
    Sent("/v1/losses/mse", [orjson.dumps({"inputs": requests.GOOD["inputs"]})], JSON),
    Sent(
        "/v1/losses/cross_entropy",
        [b'{"inputs":{"logits":[[2.0,1.0,0.1]],"targets":[0]},"dtype":"float64","encoding":"base64"}'],
        JSON,
    ),
    Sent(
        "/v2/models/mse/infer",
        [
            b'{"inputs":[{"name":"predictions","datatype":"FP32","shape":[1],"data":[3]},'
            b'{"name":"targets","datatype":"FP32","shape":[1],"data":[1]}]}'
        ],
    ),
]
"""Good requests, whose answers stay the same whatever was asked before."""


@dataclass
class Attacker:
    """Asks, checks every answer, checks that good requests are answered as before, and counts."""

    door: Door
    counted: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    slowest: tuple[float, int, str] = (0, 0, "")

    def __post_init__(self) -> None:
        self._well = [self.door.ask(sent).body for sent in WELL]

    def ask(self, kind: str, sent: Sent) -> Answer:
        """Make a request and check its answer."""
        answer = self.door.ask(sent)
        self.counted[kind, answer.status] += 1
        self.slowest = max(self.slowest, (answer.seconds, sent.size, sent.path))
        check(sent, answer)
        place = self.counted.total() % len(WELL)
        assert self.door.ask(WELL[place]).body == self._well[place]
        return answer

    def evaluate(self, sent: Sent) -> None:
        """Ask for one evaluation."""
        self.ask("evaluations", sent)

    def infer(self, sent: Sent) -> None:
        """Ask by the inference protocol."""
        self.ask("frames", sent)

    def flood(self, sent: Sent) -> None:
        """Ask with a body of a megabyte."""
        self.ask("megabytes", sent)

    def batch(self, made: tuple[Sent, Sent, list[int]]) -> None:
        """Ask for a batch: good items are answered as without the bad ones, to the bit."""
        mixed, alone, good = made
        answer = self.ask("batches", mixed)
        if answer.status != 200 or not good:
            return
        results = orjson.loads(answer.body)["results"]
        others = [one for place, one in enumerate(results) if place not in good]
        expected = orjson.loads(self.ask("batches", alone).body)["results"]
        if all(one["status"] == "error" for one in others):
            assert [results[place] for place in good] == expected

    def stream(self, sent: Sent) -> None:
        """Send lines: each that is not blank has a result, the same wherever pieces end."""
        lines = b"".join(sent.chunks).split(b"\n")
        numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
        found = self._results(sent)
        assert len(found) == len(numbers)
        for number, result in zip(numbers, found, strict=True):
            assert result.get("line", number) == number
        whole = self._results(Sent(sent.path, [b"".join(sent.chunks)], sent.headers))
        assert [one["status"] for one in found] == [one["status"] for one in whole]

    def _results(self, sent: Sent) -> list[Any]:
        return [orjson.loads(line) for line in self.ask("streams", sent).body.splitlines()]


ATTACKS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Attacker, Any], None]]] = {
    "evaluations": (requests.evaluations(), Attacker.evaluate),
    "batches": (requests.batches(), Attacker.batch),
    "streams": (requests.streams(), Attacker.stream),
    "frames": (requests.frames(), Attacker.infer),
    "megabytes": (requests.megabytes(), Attacker.flood),
}
"""Each kind of request, with the function that makes one."""
