"""Every setting of the service: a ``LOSSD_*`` environment variable with its type, default and meaning."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
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


class Settings(BaseSettings):
    """The settings, read from the environment when an instance is made."""

    model_config = SettingsConfigDict(env_prefix="LOSSD_", extra="ignore")

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes any free one.")] = 8000
    workers: Annotated[
        int, Field(ge=1, description="Processes that serve, each with a device of its own.")
    ] = 1
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
            description="`auto` (CUDA where there is one, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.",
        ),
    ] = "auto"
    threads: Annotated[
        int,
        Field(
            ge=1,
            description="Threads that one tensor operation may use on a CPU. More than 1 slows small calls.",
        ),
    ] = 1
    max_body_bytes: Annotated[
        int, Field(ge=1, description="Largest request body, in bytes. A larger one is a 413.")
    ] = 256 * 1024 * 1024
    max_inflight_bytes: Annotated[
        int,
        Field(
            ge=1,
            description="Bytes of bodies that are held at once; each takes about five times as many. More are a 429.",
        ),
    ] = 1024 * 1024 * 1024
    max_queue: Annotated[
        int, Field(ge=1, description="Requests that are accepted at once. One more is a 429.")
    ] = 512
    max_batch_items: Annotated[int, Field(ge=1, description="Items of one batch. A larger one is a 413.")] = (
        10_000
    )
    max_work: Annotated[
        int,
        Field(
            ge=1,
            description="Elements of work of one call, as its loss declares it: those of its inputs, and of all "
            "pairs where a loss forms them. More is a 413, before any memory is taken.",
        ),
    ] = 2**27
    max_line_bytes: Annotated[
        int, Field(ge=1, description="Bytes of one line of a stream. A longer one is an error of its own.")
    ] = 16 * 1024 * 1024
    deadline_s: Annotated[
        float,
        Field(gt=0, description="Seconds within which a request is answered, else it is a 504."),
    ] = 60.0
    drain_s: Annotated[
        float,
        Field(ge=0, description="Seconds for which a server that is told to end finishes what it has begun."),
    ] = 30.0
    max_connections: Annotated[
        int, Field(ge=1, description="Connections of one worker. One more is a 503, and closed.")
    ] = 4096
    max_header_bytes: Annotated[
        int, Field(ge=1, description="Bytes of a request's line and headers. More are a 431, and closed.")
    ] = 64 * 1024
    idle_s: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds for which a client may send nothing of a request that it has begun, "
            "or read less than 16 KiB of its answer. It is disconnected then.",
        ),
    ] = 30.0
    upload_s: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds within which all of a request has to arrive, and then all of its answer to be read. "
            "Streams may take any time, but not a single part of their answer.",
        ),
    ] = 300.0
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
            allow_inf_nan=False,
            description="Requests a second of one key, for each worker; 0 sets no limit. One more is a 429.",
        ),
    ] = 0.0
    key_concurrency: Annotated[
        int,
        Field(
            ge=0,
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
    return f"LOSSD_{name.upper()}"


def as_markdown() -> str:
    """Return the settings as the table that the README shows."""
    rows = [
        f"| `{variable(name)}` | {'–' if field.default in (None, '') else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])
