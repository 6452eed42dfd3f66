"""The log: one JSON object a line on standard output; it never contains data of tensors."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from service.telemetry.finished import Finished
from service.telemetry.output import Output

MOST_PATH = 200
"""Most characters of a path in a line."""
STDOUT = 1
FLUSH_S = 1.0
"""Seconds to wait for the last lines to be written at exit."""
requests = logging.getLogger("lossd.requests")


class JsonLines(logging.Handler):
    """Writes a record, with its exception's stack trace, as one JSON object."""

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = _start(record.created, record.levelno, record.getMessage(), record.name)
        if record.exc_info:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        OUTPUT.write(_encoded(line))

    def flush(self) -> None:
        """Wait for the last lines; `logging` calls it at exit."""
        OUTPUT.flush(FLUSH_S)


def config(level: str) -> dict[str, Any]:
    """Return the argument of ``logging.config.dictConfig``: JSON for all, other libraries from warnings on."""
    level = level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"json": {"class": "service.telemetry.logs.JsonLines"}},
        "root": {"handlers": ["json"], "level": "WARNING"},
        "loggers": {"lossd": {"level": level}, "uvicorn": {"level": level}},
    }


def record(over: Sequence[Finished]) -> None:
    """Write a line for each request.

    They bypass `logging.LogRecord`, which takes longer than everything else here.
    """
    lines = [_line(finished) for finished in over if requests.isEnabledFor(_level(finished))]
    if lines:
        OUTPUT.write(b"".join(lines))


def _level(finished: Finished) -> int:
    """Return the log level of a request."""
    if finished.status == 500:
        return logging.ERROR
    return logging.DEBUG if finished.route.probe and finished.status == 200 else logging.INFO


def _line(finished: Finished) -> bytes:
    """Return the line of a request, without empty fields."""
    stages = finished.stages
    message = f"{finished.method} {finished.route.label} {finished.status}"
    line = _start(finished.ended, _level(finished), message, requests.name)
    line["request_id"] = stages.request_id
    line["method"] = finished.method
    line["route"] = finished.route.label
    line["path"] = finished.path[:MOST_PATH].decode("ascii", "backslashreplace")
    line["status"] = finished.status
    line["duration_ms"] = round(1e3 * finished.seconds, 3)
    line["bytes_in"] = finished.bytes_in
    line["bytes_out"] = finished.bytes_out
    if stages.trace_id:
        line["trace_id"] = stages.trace_id
    if finished.loss:
        line["loss"] = finished.loss
    if stages.key:
        line["key"] = stages.key
    if finished.rejected:
        line["rejected"] = finished.rejected
    if finished.client_left:
        line["client_left"] = True
    return _encoded(line)


def _start(seconds: float, level: int, message: str, name: str) -> dict[str, Any]:
    """Return the fields with which every line begins."""
    return {
        "time": datetime.fromtimestamp(seconds, UTC),
        "level": logging.getLevelName(level).lower(),
        "message": message,
        "logger": name,
    }


def _encoded(line: dict[str, Any]) -> bytes:
    """Encode a line."""
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _dropped(count: int) -> bytes:
    """Return the line that reports dropped lines."""
    message = f"dropped {count} log lines: standard output was not read"
    return _encoded(_start(time.time(), logging.WARNING, message, "lossd"))


OUTPUT = Output(STDOUT, _dropped)
"""Receives all lines of this process, which has one standard output."""
