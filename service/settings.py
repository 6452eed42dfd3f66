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
    "max_line_bytes",
    "max_header_bytes",
    "max_inflight_bytes",
    "max_queue",
    "max_connections",
    "deadline_s",
    "idle_s",
    "upload_s",
)
"""Settings that clients may know."""
PREFIX = "LOSSD_"
MOST = 2**53
"""Largest count or size: `/v1/limits` answers in JSON, whose readers know integers up to here."""
MOST_S = 1e9
"""Most seconds: thirty years, beyond which timers overflow."""
Size = Annotated[int, Field(ge=1, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=MOST_S)]


class Settings(BaseSettings):
    """The settings, read from the environment when an instance is made."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    host: Annotated[str, Field(pattern=r"^\S+$", description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes any free one.")] = 8000
    workers: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | None,
        BeforeValidator(lambda value: None if value == "auto" else value),
        Field(
            description="Processes that serve; `auto` is one for each GPU, or one on a CPU. Those on `cuda` spread over all GPUs."
        ),
    ] = 1
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
            description="`auto` (`cuda` where there is a usable GPU, else `cpu`), `cpu`, `cuda` (worker i takes GPU i modulo their count), `cuda:N` or `mps`.",
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
        Size, Field(description="Largest request body, in bytes. A larger one is a 413.")
    ] = 256 * 1024 * 1024
    max_inflight_bytes: Annotated[
        Size,
        Field(
            description="Bytes of bodies and answers that are held at once; each takes about five times as many. More are a 429.",
        ),
    ] = 1024 * 1024 * 1024
    max_queue: Annotated[
        Size, Field(description="Requests that are accepted at once. One more is a 429.")
    ] = 512
    max_batch_items: Annotated[Size, Field(description="Items of one batch. A larger one is a 413.")] = 10_000
    max_work: Annotated[
        Size,
        Field(
            description="Elements of work of one call, as its loss declares it: those of its inputs, and of all "
            "pairs where a loss forms them; in float64 each counts twice. One takes at most 110 ns of a core and "
            "22 bytes, the default 15 s and 3 GB. More is a 413, before any memory is taken.",
        ),
    ] = 2**27
    max_line_bytes: Annotated[
        Size, Field(description="Bytes of one line of a stream. A longer one is an error of its own.")
    ] = 16 * 1024 * 1024
    deadline_s: Annotated[
        Seconds,
        Field(description="Seconds within which a request is answered, else it is a 504."),
    ] = 60.0
    drain_s: Annotated[
        float,
        Field(
            ge=0,
            le=MOST_S,
            description="Seconds for which a server that is told to end finishes what it has begun.",
        ),
    ] = 30.0
    max_connections: Annotated[
        int,
        Field(
            ge=1,
            le=10**6,
            description="Connections of one worker. One more is a 503, and closed. Lowered at the start, with a "
            "warning, where fewer files may be open.",
        ),
    ] = 4096
    max_header_bytes: Annotated[
        Size, Field(description="Bytes of a request's line and headers. More are a 431, and closed.")
    ] = 64 * 1024
    idle_s: Annotated[
        Seconds,
        Field(
            description="Seconds for which a client may send nothing of a request that it has begun, "
            "or read less than 16 KiB of its answer. It is disconnected then.",
        ),
    ] = 30.0
    upload_s: Annotated[
        Seconds,
        Field(
            description="Seconds within which all of a request has to arrive, and then all of its answer to be read. "
            "Streams may take any time, but not a single part of their answer.",
        ),
    ] = 300.0
    fuse: Annotated[
        bool,
        Field(
            description="Whether like calls are computed together, which is faster. Their last bits depend on the "
            "company they have; `off` computes each alone."
        ),
    ] = True
    api_keys_file: Annotated[
        Path | None,
        Field(
            description="File of the keys that may call; without it anyone may. Read again when it changes."
        ),
    ] = None
    key_rate: Annotated[
        float,
        Field(
            ge=0,
            le=1e9,
            description="Requests a second of one key, for each worker; 0 sets no limit. One more is a 429.",
        ),
    ] = 0.0
    key_concurrency: Annotated[
        int,
        Field(
            ge=0,
            le=MOST,
            description="Requests of one key at once, for each worker; 0 sets no limit. One more is a 429.",
        ),
    ] = 256
    metrics_open: Annotated[bool, Field(description="Whether `/metrics` needs no key where others do.")] = (
        False
    )
    cors_origins: Annotated[
        str,
        Field(
            description="Origins whose pages may call from browsers, with commas between; `*` for any, none without."
        ),
    ] = ""
    log_level: Annotated[
        str,
        Field(pattern="^(critical|error|warning|info|debug)$", description="How much the log tells."),
    ] = "info"

    def limits(self) -> dict[str, int | float]:
        """Return the limits that clients may know, each under its setting's name."""
        return {name: getattr(self, name) for name in LIMITS}


def variable(name: str) -> str:
    """Return the environment variable of a setting.

    >>> variable("max_body_bytes")
    'LOSSD_MAX_BODY_BYTES'
    """
    return f"{PREFIX}{name.upper()}"


def unknown(names: Iterable[str]) -> list[str]:
    """Return a warning for each name of an environment variable that looks like a setting and is none.

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
    """Return the settings as the table that the README shows."""
    rows = [
        f"| `{variable(name)}` | {'–' if field.default in (None, '') else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])
