"""Traces, against a collector that speaks OTLP over HTTP."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import httpx
import pytest

from benchmarks import servers
from service.routes import match
from service.telemetry import traces
from service.telemetry.finished import Finished
from service.telemetry.stages import Stages

proto = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
MSE = {"inputs": {"predictions": [1], "targets": [3]}}


@contextmanager
def collector() -> Generator[tuple[str, list[Any]]]:
    """Collect exports; yield the address, and the resources with their spans."""
    exported: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            exported.extend(proto.ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", exported
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


@pytest.fixture(scope="module")
def spans() -> list[Any]:
    """Return the spans of three requests."""
    with collector() as (address, exported):
        env = {"LOSSD_DEVICE": "cpu", "OTEL_EXPORTER_OTLP_ENDPOINT": address}
        with servers.lossd(env=env) as running:
            url = running.url
            parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            assert httpx.post(f"{url}/v1/losses/MSELoss", json=MSE, headers=parent).status_code == 200
            assert httpx.post(f"{url}/v1/losses/huber", json=MSE).status_code == 200
            assert httpx.post(f"{url}/v1/losses/nope", json=MSE).status_code == 404
            assert httpx.get(f"{url}/healthz").status_code == 200
        for resource in exported:
            assert attributes(resource.resource)["service.name"] == "lossd"
        return [span for resource in exported for scope in resource.scope_spans for span in scope.spans]


def attributes(of: Any) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in of.attributes}


def evaluated(spans: list[Any], loss: str) -> Any:
    [found] = [span for span in spans if attributes(span).get("lossd.loss") == loss]
    return found


@pytest.mark.server
def test_the_caller_is_the_parent(spans: list[Any]) -> None:
    span = evaluated(spans, "mse")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == "POST /v1/losses/{name}"
    recorded = attributes(span)
    assert recorded["http.response.status_code"] == 200
    assert recorded["http.route"] == "/v1/losses/{name}"


@pytest.mark.server
def test_without_one_a_trace_begins(spans: list[Any]) -> None:
    span = evaluated(spans, "huber")
    assert not span.parent_span_id
    assert span.trace_id.hex() != TRACE
    assert attributes(evaluated(spans, "unknown"))["http.response.status_code"] == 404


@pytest.mark.server
def test_stages_are_inside_one_after_another(spans: list[Any]) -> None:
    span = evaluated(spans, "mse")
    inside = sorted(
        (s for s in spans if s.parent_span_id == span.span_id), key=lambda s: s.start_time_unix_nano
    )
    assert [s.name for s in inside] == ["decode", "queue", "compute", "encode"]
    edges = [span.start_time_unix_nano]
    for stage in inside:
        edges += [stage.start_time_unix_nano, stage.end_time_unix_nano]
    # clocks are read some microseconds apart
    assert all(after > before - 50_000 for before, after in pairwise(edges))
    assert edges[-1] <= span.end_time_unix_nano


@pytest.mark.server
def test_probes_make_no_spans(spans: list[Any]) -> None:
    assert {attributes(span).get("http.route", "/v1/losses/{name}") for span in spans} == {
        "/v1/losses/{name}"
    }


def finished(**headers: bytes) -> Finished:
    stages = Stages()
    route = match("POST", "/v1/losses/mse").route
    return Finished(
        "POST",
        b"/",
        route,
        200,
        time.time(),
        0.1,
        0,
        0,
        stages,
        **{"traceparent": b"", "tracestate": b"", **headers},
    )


def test_a_collector_that_is_not_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(traces, "CLOSE_S", 0.1)
    made = traces.from_environment()
    assert made
    made.record(finished())
    start = time.monotonic()
    made.close()
    # it would go on trying for ten seconds and more
    assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    "parent", [b"", b"00", b"\xff", b"00-0-0-0", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00"]
)
@pytest.mark.parametrize("state", [b"", b"\xff=,", b"a=b," * 1000, b"=" * 100_000])
def test_what_clients_make_up_begins_a_trace_of_its_own(
    monkeypatch: pytest.MonkeyPatch, parent: bytes, state: bytes
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    made = traces.from_environment()
    assert made
    over = finished(traceparent=parent, tracestate=state)
    made.record(over)
    assert int(over.stages.trace_id, 16)
    made.close()


def test_an_endpoint_without_an_exporter_is_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setattr(traces, "NEEDED", ("opentelemetry_that_is_not_installed.sdk",))
    with pytest.raises(ValueError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set.*lossd\[otel\]"):
        traces.from_environment()


def test_the_server_ends_with_those_words() -> None:
    hide = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from service.cli import main; main(['serve'])"
    )
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    ended = subprocess.run(
        [sys.executable, "-c", hide], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("OTEL_EXPORTER_OTLP_ENDPOINT is set")
    assert "Traceback" not in ended.stderr
