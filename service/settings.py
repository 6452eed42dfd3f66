"""Every setting of the service: a ``LOSSD_*`` environment variable with its type, default and meaning."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

LIMITS = (
    "max_body_bytes",
    "max_batch_items",
    "max_work",
    "max_expression",
    "max_line_bytes",
    "max_header_bytes",
    "max_inflight_bytes",
    "max_queue",
    "max_connections",
    "deadline_s",
    "idle_s",
    "upload_s",
    "evaluation_max_bytes",
    "evaluation_max_metrics",
    "evaluation_max_slices",
    "evaluation_max_expires_s",
)
"""Settings that clients may see."""
PREFIX = "LOSSD_"
MOST = 2**53
"""Largest count or size: JSON readers of `/v1/limits` have exact integers up to here."""
MOST_S = 1e9
"""Longest time in seconds, thirty years: longer timers overflow."""
Size = Annotated[int, Field(ge=1, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=MOST_S)]


class Settings(BaseSettings):
    """The settings, read from the environment on creation."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    host: Annotated[str, Field(pattern=r"^\S+$", description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes any free one.")] = 8000
    workers: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | None,
        BeforeValidator(lambda value: None if value == "auto" else value),
        Field(
            description="Processes that serve; `auto` is one for each GPU, or one on a CPU. On `cuda` they spread over all GPUs."
        ),
    ] = 1
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
            description="`auto` (`cuda` if there is a usable GPU, else `cpu`), `cpu`, `cuda` (worker i uses GPU i modulo their number), `cuda:N` or `mps`.",
        ),
    ] = "auto"
    threads: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="Threads that one tensor operation may use on a CPU. More than 1 slows small calls.",
        ),
    ] = 1
    max_body_bytes: Annotated[
        Size, Field(description="Largest request body, in bytes. A larger one gets a 413.")
    ] = 256 * 1024 * 1024
    max_inflight_bytes: Annotated[
        Size,
        Field(
            description="Most bytes of bodies and answers held at once by a worker; computing takes about five times "
            "as many. While there are more, bodies over 64 KiB get a 429.",
        ),
    ] = 1024 * 1024 * 1024
    max_queue: Annotated[
        Size, Field(description="Most requests accepted at once by a worker. More get a 429.")
    ] = 512
    max_batch_items: Annotated[Size, Field(description="Most items in a batch. More get a 413.")] = 10_000
    max_work: Annotated[
        Size,
        Field(
            description="Most elements of work in one call, as its loss or metric declares it: those of its inputs, of all "
            "pairs where a loss forms them, and of each replicate, slice and class of a metric; in float64 each counts twice. An element takes at most 110 ns of a core "
            "and 22 bytes, so the default is 15 s and 3 GB. More gets a 413, before any memory is allocated.",
        ),
    ] = 2**27
    max_expression: Annotated[
        Size, Field(description="Longest expression, in characters. A longer one gets a 422.")
    ] = 4096
    max_line_bytes: Annotated[
        Size, Field(description="Longest line of a stream, in bytes. A longer one gets an error result.")
    ] = 16 * 1024 * 1024
    deadline_s: Annotated[
        Seconds,
        Field(description="Seconds within which a request must be answered. After that it gets a 504."),
    ] = 60.0
    drain_s: Annotated[
        float,
        Field(
            ge=0,
            le=MOST_S,
            description="Seconds that running requests have to finish after SIGTERM.",
        ),
    ] = 30.0
    max_connections: Annotated[
        int,
        Field(
            ge=1,
            le=10**6,
            description="Most connections of a worker. More get a 503 and are closed. Lowered at startup, with a "
            "warning, if the limit on open files is too low.",
        ),
    ] = 4096
    max_header_bytes: Annotated[
        Size, Field(description="Most bytes of a request's line and headers. More get a 431 and are closed.")
    ] = 64 * 1024
    idle_s: Annotated[
        Seconds,
        Field(
            description="Seconds that a client may pause in the middle of a request, or read less than 16 KiB of its "
            "answer. After that it is disconnected.",
        ),
    ] = 30.0
    upload_s: Annotated[
        Seconds,
        Field(
            description="Seconds for a whole request to arrive, and then for its whole answer to be read. A stream may "
            "take any time, but no single part of its answer.",
        ),
    ] = 300.0
    fuse: Annotated[
        bool,
        Field(
            description="Whether like calls are computed together, which is faster, but lets the last bits of a result "
            "depend on the load; `off` computes each alone."
        ),
    ] = True
    api_keys_file: Annotated[
        Path | None,
        Field(description="File of API keys, reloaded when it changes. Without it no key is required."),
    ] = None
    key_rate: Annotated[
        float,
        Field(
            ge=0,
            le=1e9,
            description="Most requests a second by one key, for each worker; 0 sets no limit. More get a 429.",
        ),
    ] = 0.0
    key_concurrency: Annotated[
        int,
        Field(
            ge=0,
            le=MOST,
            description="Most concurrent requests by one key, for each worker; 0 sets no limit. More get a 429.",
        ),
    ] = 256
    database_url: Annotated[
        str,
        Field(
            pattern=r"^$|^(postgresql|sqlite)(\+\w+)?://",
            description="Database of evaluations, such as `postgresql://user@host/lossd`, which any number of servers share. "
            "Without it a file in `LOSSD_DATA_DIR`.",
        ),
    ] = ""
    data_dir: Annotated[
        Path,
        Field(
            description="Folder of the SQLite file of evaluations. If it cannot be written, evaluations get a 503, and "
            "everything else works."
        ),
    ] = Path("data")
    evaluation_max_bytes: Annotated[
        Size,
        Field(
            description="Largest evaluation, in bytes of its rows before compression. A part beyond that gets a 413."
        ),
    ] = 1024 * 1024 * 1024
    evaluation_max_metrics: Annotated[
        Size, Field(description="Most metrics of an evaluation. More get a 413.")
    ] = 64
    evaluation_max_slices: Annotated[
        Size, Field(description="Most slices in the results of an evaluation. More get a 413.")
    ] = 1000
    evaluation_max_expires_s: Annotated[
        Seconds,
        Field(
            description="Most seconds that an evaluation is kept, and those for which it is kept unless its spec says less."
        ),
    ] = 31_536_000.0
    evaluation_cache_bytes: Annotated[
        Size,
        Field(
            description="Bytes of memory for merged rows of evaluations, and as many again for their ids, in each worker."
        ),
    ] = 256 * 1024 * 1024
    metrics_open: Annotated[
        bool, Field(description="Whether `/metrics` is open although keys are required.")
    ] = False
    cors_origins: Annotated[
        str,
        Field(description="Origins whose pages may call from browsers, separated by commas; `*` allows any."),
    ] = ""
    log_level: Annotated[
        str,
        Field(pattern="^(critical|error|warning|info|debug)$", description="Lowest level that is logged."),
    ] = "info"

    def limits(self) -> dict[str, int | float]:
        """Return the limits that clients may see, each under its setting's name."""
        return {name: getattr(self, name) for name in LIMITS}


def variable(name: str) -> str:
    """Return the environment variable of a setting.

    >>> variable("max_body_bytes")
    'LOSSD_MAX_BODY_BYTES'
    """
    return f"{PREFIX}{name.upper()}"


def unknown(names: Iterable[str]) -> list[str]:
    """Return a warning for each environment variable that looks like a setting but is not one.

    >>> unknown(["LOSSD_MAX_QEUE", "LOSSD_PORT", "PATH"])
    ['LOSSD_MAX_QEUE is not a setting and has no effect; the nearest name is LOSSD_MAX_QUEUE.']
    """
    known = [variable(name) for name in Settings.model_fields]
    strange = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    nearest = [get_close_matches(name.upper(), known, n=1, cutoff=0)[0] for name in strange]
    return [
        f"{name} is not a setting and has no effect; the nearest name is {near}."
        for name, near in zip(strange, nearest, strict=True)
    ]


def settings_table() -> str:
    """Return the settings as a table for the README."""
    rows = [
        f"| `{variable(name)}` | {'–' if field.default in (None, '') else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])
