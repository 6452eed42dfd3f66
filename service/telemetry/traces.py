"""OpenTelemetry traces, if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set: a span for each request and for each of its stages.

Spans are made after the request from the times in `Stages`, so tracing costs nothing while it runs.
"""

import os
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING

from service.telemetry.finished import Finished

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
CLOSE_S = 2.0
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Traces:
    """Makes the spans of requests and exports them in the background."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("lossd")
        self._parents = TraceContextTextMapPropagator()

    def record(self, finished: Finished) -> None:
        """Make the spans of a request and note its trace ID."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id, set_span_in_context

        sent = {
            "traceparent": finished.traceparent.decode("latin-1"),
            "tracestate": finished.tracestate.decode("latin-1"),
        }
        attributes: dict[str, str | int] = {
            "http.request.method": finished.method,
            "http.route": finished.route.label,
            "http.response.status_code": finished.status,
            "lossd.request_id": finished.stages.request_id,
        }
        attributes |= {"lossd.loss": finished.loss} if finished.loss else {}
        # converts the process's monotonic clock to the time of day
        start = finished.stages.start
        shift = finished.ended - finished.seconds - start
        span = self._tracer.start_span(
            f"{finished.method} {finished.route.label}",
            self._parents.extract(sent),
            SpanKind.SERVER,
            attributes,
            start_time=_nanoseconds(start + shift),
        )
        if finished.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        end = start
        for stage, seconds in finished.stages.seconds.items():
            if seconds:
                # a stage without a recorded start followed the one before
                begin = finished.stages.began.get(stage, end)
                end = begin + seconds
                child = self._tracer.start_span(stage, inside, start_time=_nanoseconds(begin + shift))
                child.end(_nanoseconds(end + shift))
        span.end(_nanoseconds(start + finished.seconds + shift))
        finished.stages.trace_id = format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Export the remaining spans, within limits: an unreachable collector does not delay the shutdown."""
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def from_environment() -> Traces | None:
    """Return the tracer, if an endpoint is set.

    Raises:
        ValueError: an endpoint is set, but the exporter is not installed.
    """
    if _endpoint() is None:
        return None
    refuse_missing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "lossd")
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


def refuse_missing() -> None:
    """Check that the exporter is installed, if an endpoint is set.

    Raises:
        ValueError: it is not installed.
    """
    if (variable := _endpoint()) and not all(map(_is_installed, NEEDED)):
        raise ValueError(
            f"{variable} is set, but the trace exporter is not installed: pip install 'lossd[otel]'."
        )


def _endpoint() -> str | None:
    """Return the variable that sets the endpoint."""
    return next((name for name in ENDPOINTS if os.environ.get(name)), None)


def _is_installed(module: str) -> bool:
    """Return whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _nanoseconds(seconds: float) -> int:
    """Convert a time to OpenTelemetry's unit."""
    return round(1e9 * seconds)
