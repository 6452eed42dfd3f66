"""Metrics are counted correctly, and clients cannot multiply their series."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
import pytest
import torch
from starlette.types import Receive, Scope, Send
from torch import Tensor

from benchmarks import servers
from service.admission import keys
from service.app import create_app
from service.catalogue.declare import loss
from service.catalogue.registry import Catalogue
from service.catalogue.spec import Prediction, Unreduced
from service.document.openapi import document
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.routes import match_route
from service.settings import Settings
from service.telemetry.finished import Finished
from service.telemetry.metrics import Metrics
from service.telemetry.stages import Stages
from tests.client import Client, behind_front, recording
from tests.scrape import Samples, parse, scrape, value

MSE = {"predictions": [1.0, 2.0], "targets": [0.0, 0.0]}
ROUTE = "/v1/losses/{name}"
SLEEP_S = 0.3


def told(client: Client) -> Samples:
    return parse(client.get("/metrics").text)


@contextmanager
def more(client: Client) -> Generator[Callable[..., float]]:
    """Yield a function that returns the growth of a sample since then."""
    before = told(client)
    yield lambda name, **labels: value(told(client), name, **labels) - value(before, name, **labels)


def test_a_request_is_counted_under_its_route_and_its_losss_own_name(client: Client) -> None:
    with more(client) as grown:
        client.evaluate("MSELoss", inputs=MSE)
        client.evaluate("mse", inputs={})
        client.evaluate("nope", inputs={})
        assert grown("lossd_requests_total", route=ROUTE, loss="mse", status="200") == 1
        assert grown("lossd_requests_total", route=ROUTE, loss="mse", status="422") == 1
        assert grown("lossd_requests_total", route=ROUTE, loss="unknown", status="404") == 1
        assert grown("lossd_items_total", loss="mse", status="200") == 1
        for stage in ("decode", "queue", "compute", "encode"):
            assert grown("lossd_request_duration_seconds_count", route=ROUTE, stage=stage) >= 1, stage
        assert grown("lossd_request_duration_seconds_count", route=ROUTE, stage="total") == 3
        assert grown("lossd_batch_size_count") == 1


def test_the_items_of_batches_and_streams_are_counted(client: Client) -> None:
    items = [{"loss": "mse", "inputs": MSE}, {"loss": "mse", "inputs": MSE}, {"loss": "mse", "inputs": {}}]
    with more(client) as grown:
        client.post("/v1/batch", json={"items": items})
        assert grown("lossd_items_total", loss="mse", status="200") == 2
        assert grown("lossd_items_total", loss="unknown", status="422") == 1
        assert grown("lossd_batch_size_sum") == 2
        assert grown("lossd_batch_size_count") == 1
        assert grown("lossd_requests_total", route="/v1/batch", loss="", status="200") == 1
    line = b'{"loss": "mse", "inputs": {"predictions": [1], "targets": [0]}}\n'
    with more(client) as grown:
        client.post("/v1/batch", content=line * 3 + b"{", headers={"content-type": "application/x-ndjson"})
        assert grown("lossd_items_total", loss="mse", status="200") == 3
        assert grown("lossd_items_total", loss="unknown", status="400") == 1
        assert grown("lossd_requests_total", route="/v1/batch ndjson", status="200") == 1


def test_answers_that_are_not_finite_are_counted(client: Client) -> None:
    with more(client) as grown:
        client.evaluate("mse", inputs={"predictions": [1e30], "targets": [-1e30]})
        client.evaluate("mse", inputs=MSE)
        assert grown("lossd_nonfinite_total", loss="mse") == 1


def test_each_stage_is_counted_under_its_own_name() -> None:
    finished, metrics = a_finished_request(), Metrics()
    finished.stages.seconds.update(decode=1.0, queue=2.0, compute=4.0, encode=8.0)
    metrics.count_request(finished)
    samples = parse(metrics.text().decode())
    for stage, seconds in {"decode": 1, "queue": 2, "compute": 4, "encode": 8, "total": 16}.items():
        assert value(samples, "lossd_request_duration_seconds_sum", route=ROUTE, stage=stage) == seconds


def a_finished_request() -> Finished:
    """Return a request that took 16 seconds."""
    route = match_route("POST", "/v1/losses/mse").route
    return Finished("POST", b"/v1/losses/mse", route, 200, time.time(), 16.0, 0, 0, Stages(), b"", b"")


@loss(title="Sleeping", tasks=("regression",))
def sleeping(
    predictions: Annotated[Tensor, Prediction("N")], *, fails: Literal["not", "breaks", "exhausts"] = "not"
) -> Annotated[Tensor, Unreduced("N")]:
    """Take a while, and perhaps fail.

    Formula:
        0

    Args:
        predictions: Anything.
        fails: Whether it fails, and how.

    Use when:
        Never.

    Pitfalls:
        All.

    Sources:
        - None.
    """
    time.sleep(SLEEP_S)
    if fails == "breaks":
        raise RuntimeError("it fails")
    return 0 * (predictions if fails == "not" else torch.empty(1 << 60))


@pytest.fixture(scope="module")
def sleeper() -> Client:
    return Client(create_app(Settings(device="cpu"), Catalogue(sys.modules[__name__])))


@pytest.mark.parametrize("route", [ROUTE, "/v1/batch", "/v2/models/{model}/infer"])
def test_what_a_loss_takes_is_counted_as_computing(sleeper: Client, route: str) -> None:
    inputs = {"predictions": [1.0]}
    tensor = {"name": "predictions", "shape": [1], "datatype": "FP32", "data": [1]}
    body = {
        ROUTE: {"inputs": inputs},
        "/v1/batch": {"items": [{"loss": "sleeping", "inputs": inputs}]},
        "/v2/models/{model}/infer": {"inputs": [tensor]},
    }[route]
    with more(sleeper) as grown:
        assert sleeper.post(
            route.replace("{name}", "sleeping").replace("{model}", "sleeping"), json=body
        ).is_success
        assert grown("lossd_request_duration_seconds_sum", route=route, stage="compute") >= SLEEP_S


def test_calls_that_memory_cannot_hold_are_counted(sleeper: Client) -> None:
    with more(sleeper) as grown:
        inputs, params = {"predictions": [1]}, {"fails": "exhausts"}
        assert sleeper.evaluate("sleeping", inputs=inputs, params=params).status_code == 413
        assert grown("lossd_oom_total") == 1
        assert grown("lossd_rejected_total", reason="size") == 1


@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
def test_items_that_fail_are_counted_as_such(media: str) -> None:
    """Alone, and among others that are like them: those that are refused, and those that break."""
    client = Client(create_app(Settings(device="cpu", max_work=7), Catalogue(sys.modules[__name__])))
    items = [{"loss": "sleeping", "inputs": {"predictions": [1] * length}} for length in (2, 2, 9, 9, 10)]
    items += [{"loss": "sleeping", "inputs": {"predictions": [1]}, "params": {"fails": "breaks"}}] * 2
    lines = b"\n".join(json.dumps(item).encode() for item in items)
    body = json.dumps({"items": items}).encode() if media == "application/json" else lines
    with more(client) as grown:
        assert client.post("/v1/batch", content=body, headers={"content-type": media}).status_code == 200
        counts = {
            status: grown("lossd_items_total", loss="sleeping", status=status)
            for status in ("200", "413", "500")
        }
    assert counts == {"200": 2, "413": 3, "500": 2}


def test_refusals_are_counted_by_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    token = keys.new(path, "ci")
    client = Client(create_app(Settings(device="cpu", api_keys_file=path, key_rate=0.1, metrics_open=True)))
    with more(client) as grown:
        statuses = [client.get("/v1/losses", headers={"x-api-key": token}).status_code for _ in range(2)]
        assert statuses == [200, 429]
        assert client.get("/v1/losses", headers={"x-api-key": "wrong"}).status_code == 401
        assert grown("lossd_rejected_total", reason="rate") == 1
        assert grown("lossd_rejected_total", reason="key") == 1
        assert grown("lossd_key_requests_total", key="ci", status="200") == 1
        assert grown("lossd_key_requests_total", key="ci", status="429") == 1
        assert grown("lossd_key_requests_total") == 2, "who has no key has no name"
    small = Client(create_app(Settings(device="cpu", max_body_bytes=10)))
    with more(small) as grown:
        assert small.evaluate("mse", inputs=MSE).status_code == 413
        assert grown("lossd_rejected_total", reason="size") == 1


@pytest.mark.parametrize("path", ["/v1/losses/mse", "/v2/models/mse/infer"])
def test_what_is_refused_before_its_loss_is_known_is_of_none_and_no_item(tmp_path: Path, path: str) -> None:
    keys.new(tmp_path / "keys", "ci")
    client = Client(create_app(Settings(device="cpu", api_keys_file=tmp_path / "keys", metrics_open=True)))
    with more(client) as grown:
        assert client.post(path, json={}).status_code == 401
        assert (
            grown(
                "lossd_requests_total", route=match_route("GET", path).route.template, loss="", status="401"
            )
            == 1
        )
        assert grown("lossd_requests_total", loss="unknown") == 0
        assert grown("lossd_items_total") == 0
    with more(free := Client()) as grown:
        assert free.request("DELETE", path).status_code == 405
        assert (
            grown(
                "lossd_requests_total", route=match_route("GET", path).route.template, loss="", status="405"
            )
            == 1
        )
        assert grown("lossd_requests_total", loss="unknown") == 0


def test_every_reason_of_a_refusal_is_told_from_the_start(client: Client) -> None:
    text = client.get("/metrics").text
    [told_of] = re.findall(r"# HELP lossd_rejected_total Requests refused: (.*)\.\n", text)
    assert set(re.findall(r'lossd_rejected_total\{reason="(\w+)"\}', text)) == set(told_of.split(", "))


def test_no_client_decides_how_many_series_there_are(client: Client) -> None:
    methods = ("GET", "POST", "PUT", "DELETE", "BREW", "X" * 500)

    def ask(round_: int) -> None:
        for number, method in enumerate(methods):
            odd = f"{round_}x{number}\u202e\n\"'{{}}"
            for path in (f"/{odd}", f"/v1/losses/{odd}", f"/v2/models/{odd}/infer", f"/v1/losses/mse/{odd}"):
                client.request(method, quote(path))
        client.evaluate(f"loss{round_}", inputs={})
        client.post("/v1/batch", json={"items": [{"loss": f"loss{round_}", "inputs": {}}]})
        client.get("/v1/losses", headers={"x-api-key": f"k{round_}", "x-request-id": f"r{round_}"})

    ask(0)
    # the first scrape counts as a request too
    told(client)
    before = told(client).keys()
    with more(client) as grown:
        for round_ in range(1, 6):
            ask(round_)
        assert grown("lossd_requests_total") >= 5 * (4 * len(methods) + 3)
    assert told(client).keys() - before == set()


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/losses/mse", ROUTE),
        ("/v1/losses/a/b", "other"),
        ("/v1/losses", "/v1/losses"),
        ("/v2/models/mse", "/v2/models/{model}"),
        ("/v2/models/mse/versions/1/infer", "/v2/models/{model}/versions/{version}/infer"),
        ("/v2/models/stats", "/v2/models/stats"),
        ("/v2/models/mse/nope", "other"),
        ("/v2/repository/models/mse/load", "/v2/repository/models/{model}/load"),
        ("/v2/health/live", "/v2/health/live"),
        ("/V1/losses", "other"),
        ("/healthz/", "other"),
        ("", "other"),
    ],
)
def test_a_path_is_of_a_route(path: str, route: str) -> None:
    assert match_route("GET", path).route.template == route


def test_every_route_that_is_described_has_a_name_of_its_own() -> None:
    described = document(CATALOGUE.values(), METRICS.values())["paths"].keys()
    assert len(described) > 200
    assert [path for path in described if match_route("GET", path).route.template == "other"] == []


def test_a_client_that_leaves_is_counted_and_holds_nothing_any_more(client: Client) -> None:
    held: list[float] = []

    async def leave() -> None:
        messages = iter([{"type": "http.request", "body": b"x" * 100_000, "more_body": True}])

        async def receive() -> dict[str, Any]:
            if message := next(messages, None):
                return message
            answer = await client.ask("GET", "/metrics")
            held.append(value(parse(answer.text), "lossd_inflight_bytes"))
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError("nobody is there")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/losses/mse",
            "headers": [],
            "query_string": b"",
        }
        await client.app(scope, receive, send)

    with more(client) as grown:
        asyncio.run(leave())
        assert grown("lossd_requests_total", route=ROUTE, loss="mse", status="499") == 1
        assert held == [100_000]
        assert grown("lossd_inflight_bytes") == 0


def test_a_server_that_breaks_is_counted_also_in_the_middle_of_an_answer() -> None:
    def counted() -> float:
        recorder.flush()
        return value(parse(metrics.text().decode()), "lossd_requests_total", route="other", status="500")

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    metrics = Metrics()
    recorder = recording(metrics)
    client = behind_front(broken, recorder)
    client.get("/early")
    client.get("/late")
    assert counted() == 2


def test_two_applications_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    keys.new(tmp_path / "keys", "ci")
    guarded = Settings(device="cpu", api_keys_file=tmp_path / "keys", metrics_open=True, max_body_bytes=1000)
    one, other = Client(create_app(guarded)), Client(create_app(Settings(device="cpu", max_batch_items=1)))
    batch = {"items": [{"loss": "mse", "inputs": MSE}] * 2}
    with more(one) as of_one, more(other) as of_other:
        assert one.evaluate("mse", inputs=MSE).status_code == 401
        assert other.evaluate("mse", inputs=MSE).status_code == 200
        assert other.post("/v1/batch", json=batch).status_code == 413
        assert other.get("/v1/limits").json()["max_body_bytes"] > 1000
        assert of_one("lossd_requests_total", status="401") == 1
        assert of_one("lossd_requests_total", route=ROUTE) == 1
        assert of_one("lossd_items_total") == of_one("lossd_batch_size_count") == 0
        assert of_other("lossd_requests_total", status="401") == 0
        assert of_other("lossd_requests_total", route=ROUTE) == 1
        assert (of_other("lossd_items_total"), of_other("lossd_batch_size_count")) == (1, 1)
        assert of_other("lossd_rejected_total", reason="size") == 1
        assert of_one("lossd_rejected_total", reason="size") == 0


def test_promtool_finds_nothing_to_say(client: Client) -> None:
    if not (promtool := shutil.which("promtool")):
        pytest.skip("there is no promtool on this machine")
    client.evaluate("mse", inputs=MSE)
    text = client.get("/metrics").content
    ended = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_what_a_dead_worker_counted_stays_and_its_gauges_go(tmp_path: Path) -> None:
    count = "metrics.oom.inc(3); metrics.queue_depth.set(5); metrics.device_capacity.labels('cpu').set(7)"
    tell = "metrics.queue_depth.set(2); print(metrics.text().decode())"
    for code in (count, tell):
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from service.telemetry.metrics import Metrics; metrics = Metrics(); {code}",
            ],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    samples = parse(ended.stdout)
    assert value(samples, "lossd_oom_total") == 3
    assert value(samples, "lossd_queue_depth") == 2
    assert not any(name == "lossd_device_memory_capacity_bytes" for name, _ in samples)


@pytest.mark.server
def test_two_workers_are_told_as_one_and_survive_the_death_of_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = {"LOSSD_DEVICE": "cpu", "LOSSD_WORKERS": "2", "TMPDIR": str(tmp_path)}
    with servers.lossd(env=env, log=log) as running:
        server = running.url
        workers = until_started(log, 2)
        ask(server, 40)
        samples = scrape(server)
        assert value(samples, "lossd_requests_total", loss="mse", status="200") == 40
        assert value(samples, "lossd_build_info") == 1
        memory = value(samples, "lossd_device_memory_bytes", device="cpu", kind="resident")
        os.kill(workers[0], signal.SIGKILL)
        until_started(log, 3)
        time.sleep(1.5)
        ask(server, 10)
        samples = scrape(server)
        assert value(samples, "lossd_requests_total", loss="mse", status="200") == 50
        assert value(samples, "lossd_build_info") == 1
        again = value(samples, "lossd_device_memory_bytes", device="cpu", kind="resident")
        assert again == pytest.approx(memory, rel=0.2), "of two workers, not of three"
    assert not list(tmp_path.glob("lossd-metrics-*")), "what workers shared is removed"


def ask(server: str, times: int) -> None:
    """Evaluate on separate connections, so that all workers get some."""
    for _ in range(times):
        answer = httpx.post(f"{server}/v1/losses/mse", json={"inputs": MSE}, timeout=30)
        assert answer.status_code == 200


def until_started(log: Path, count: int) -> list[int]:
    """Return the process ids of workers once so many have started."""
    for _ in range(300):
        found = re.findall(r"Started server process \[(\d+)\]", log.read_text())
        if log.read_text().count("Application startup complete") >= count:
            return [int(pid) for pid in found]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
