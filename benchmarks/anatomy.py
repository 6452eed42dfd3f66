"""Print where the time of one call with an 11 MB body goes, next to the unavoidable parts."""

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import orjson
import simdjson

from benchmarks import servers
from benchmarks.bodies import PATH, arrays, request
from benchmarks.client import Connection

ROWS, CLASSES, TURNS = 1024, 1000, 15
STAGE = re.compile(rb"(\w+);dur=([\d.]+)")


def main() -> None:
    """Measure a call, an echo of the same bytes, the parse and the dump; print them."""
    body = request(ROWS, CLASSES)
    with servers.lossd() as ours, servers.echo() as echo:
        stages, whole = stages_of(ours.url, body)
        transport = median(lambda: Connection(echo.url).post("/", body))
    parser = simdjson.Parser()
    parse = median(lambda: parser.parse(body) and None)
    gradient = arrays(ROWS, CLASSES)["logits"] / 1000
    dump = median(lambda: orjson.dumps(gradient, option=orjson.OPT_SERIALIZE_NUMPY))
    print("| of one call [1024, 1000] as JSON | ms | of which |\n| --- | --- | --- |")
    print(f"| seen by the client | {1e3 * whole:.1f} | |")
    print(f"| decode | {stages['decode']:.1f} | simdjson's parse {1e3 * parse:.1f} |")
    print(f"| compute | {stages['compute']:.1f} | torch |")
    print(f"| encode | {stages['encode']:.1f} | orjson's dump {1e3 * dump:.1f} |")
    rest = 1e3 * whole - stages["decode"] - stages["compute"] - stages["encode"]
    print(f"| the rest | {rest:.1f} | uvicorn alone, sending as many bytes back, {1e3 * transport:.1f} |")


def stages_of(url: str, body: bytes) -> tuple[dict[str, float], float]:
    """Return the median milliseconds of each stage reported by the server, and the client's median seconds."""
    connection = Connection(url)
    seen: defaultdict[str, list[float]] = defaultdict(list)

    def call() -> None:
        for name, duration in STAGE.findall(connection.post(PATH, body)):
            seen[name.decode()].append(float(duration))

    whole = median(call)
    return {name: statistics.median(durations) for name, durations in seen.items()}, whole


def median(call: Callable[[], object]) -> float:
    """Return the median seconds of a call, after two for warming up."""
    times: list[float] = []
    for _ in range(TURNS + 2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
