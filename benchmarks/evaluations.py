"""A million rows of labels from four clients, then results of five metrics with twenty slices: time and memory."""

import argparse
import base64
import http.client
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import servers

CLIENTS = 4
METRICS = ["accuracy", "f1", "confusion_matrix", "cohen_kappa", "matthews_corrcoef"]
SPEC = {
    "task": "multiclass",
    "num_classes": 10,
    "columns": {"predictions": "predicted", "targets": "label", "id": "image", "slices": ["group"]},
    "metrics": METRICS,
}


def packed(values: Any) -> dict[str, Any]:
    """Return an array as a packed tensor."""
    data = base64.b64encode(values.tobytes()).decode()
    return {"dtype": str(values.dtype), "shape": list(values.shape), "data": data}


def columns(start: int, count: int) -> dict[str, Any]:
    """Return the columns of some rows."""
    rng = np.random.default_rng(start)
    labels = rng.integers(0, 10, count)
    predicted = np.where(rng.random(count) < 0.8, labels, rng.integers(0, 10, count))
    ids = np.arange(start, start + count)
    return {"image": ids, "label": labels, "predicted": predicted, "group": ids % 20}


def as_packed(start: int, count: int) -> tuple[bytes, str]:
    """Return a part as packed columns."""
    body = {name: packed(one.astype(np.int64)) for name, one in columns(start, count).items()}
    return json.dumps(body).encode(), "application/json"


def as_ndjson(start: int, count: int) -> tuple[bytes, str]:
    """Return a part as NDJSON."""
    found = {name: one.tolist() for name, one in columns(start, count).items()}
    rows = zip(*found.values(), strict=True)
    lines = [json.dumps(dict(zip(found, row, strict=True))) for row in rows]
    return "\n".join(lines).encode(), "application/x-ndjson"


def memory(pid: int) -> float:
    """Return the largest resident memory of a process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def ask(url: str, method: str, path: str, body: bytes = b"", media: str = "application/json") -> Any:
    """Send a request, and return the decoded answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    connection.request(method, path, body, {"Content-Type": media})
    response = connection.getresponse()
    text = response.read()
    assert response.status < 300, text
    return json.loads(text) if text else None


def ingest(
    url: str, name: str, rows: int, a_part: int, make: Callable[[int, int], tuple[bytes, str]]
) -> float:
    """Send all rows by some clients; return the seconds."""
    ask(url, "PUT", f"/v1/evaluations/{name}", json.dumps(SPEC).encode())
    bodies = [(start, *make(start, a_part)) for start in range(0, rows, a_part)]

    def send(body: tuple[int, bytes, str]) -> None:
        start, data, media = body
        ask(url, "PUT", f"/v1/evaluations/{name}/parts/{start}", data, media)

    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(send, bodies))
    return time.perf_counter() - begin


def main() -> None:
    """Measure, and print a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", type=int, default=10_000)
    parser.add_argument("--database", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = {"LOSSD_DEVICE": "cpu", "LOSSD_DATA_DIR": folder, "LOSSD_DATABASE_URL": asked.database}
        for name, make in (("packed", as_packed), ("ndjson", as_ndjson)):
            with servers.lossd(env=env) as server:
                seconds = ingest(server.url, name, asked.rows, asked.part, make)
                reads, found = list[float](), dict[str, Any]()
                for _ in range(3):
                    begin = time.perf_counter()
                    found = ask(server.url, "GET", f"/v1/evaluations/{name}?slices=group")
                    reads.append(time.perf_counter() - begin)
                assert found["rows"] == asked.rows and len(found["slices"]) == 20
                print(
                    f"{name}: {seconds:.1f} s for {asked.rows} rows, results {reads[0]:.2f} s cold and {reads[-1]:.2f} s "
                    f"warm, {memory(server.process):.0f} MB at most",
                    flush=True,
                )
                ask(server.url, "DELETE", f"/v1/evaluations/{name}")


if __name__ == "__main__":
    main()
