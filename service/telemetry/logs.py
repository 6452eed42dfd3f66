"""The log: JSON, one object a line, on standard output; no line holds anything of a tensor."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from service.telemetry.finished import Finished
from service.telemetry.output import LineOutput

MOST_PATH = 200
"""Characters of a path that a line repeats."""
STDOUT = 1
FLUSH_S = 1.0
"""Seconds that the end of the process waits for the last lines to be written."""
requests = logging.getLogger("lossd.requests")


class JsonLines(logging.Handler):
    """Writes a record, and the stack of an exception with it, as one JSON object."""

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = _start(record.created, record.levelno, record.getMessage(), record.name)
        if record.exc_info:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        OUTPUT.write(_encoded(line))

    def flush(self) -> None:
        """Let the last lines be written; `logging` calls it at the end of the process."""
        OUTPUT.flush(FLUSH_S)


def logging_config(level: str) -> dict[str, Any]:
    """Return what ``logging.config.dictConfig`` takes: all in JSON, libraries of others from warnings on."""
    level = level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"json": {"class": "service.telemetry.logs.JsonLines"}},
        "root": {"handlers": ["json"], "level": "WARNING"},
        "loggers": {"lossd": {"level": level}, "uvicorn": {"level": level}},
    }


def log_request(over: Sequence[Finished]) -> None:
    """Write a line for each request.

    They do not go through records: what those look up takes longer than all the rest.
    """
    lines = [_line(finished) for finished in over if requests.isEnabledFor(_level(finished))]
    if lines:
        OUTPUT.write(b"".join(lines))


def _level(finished: Finished) -> int:
    """Return how much a request is worth telling."""
    if finished.status == 500:
        return logging.ERROR
    return logging.DEBUG if finished.route.probe and finished.status == 200 else logging.INFO


def _line(finished: Finished) -> bytes:
    """Return the line of a request; what there is nothing of is left out."""
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
    """Return what every line begins with."""
    return {
        "time": datetime.fromtimestamp(seconds, UTC),
        "level": logging.getLevelName(level).lower(),
        "message": message,
        "logger": name,
    }


def _encoded(line: dict[str, Any]) -> bytes:
    """Return a line's bytes."""
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _dropped(count: int) -> bytes:
    """Return the line that tells of lines that were dropped."""
    message = f"dropped {count} lines of the log: standard output was not read"
    return _encoded(_start(time.time(), logging.WARNING, message, "lossd"))


OUTPUT = LineOutput(STDOUT, _dropped)
"""What all lines of this process go to, as there is one standard output."""
