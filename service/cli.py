"""The ``lossd`` command: serve, and print or write what is generated from the code."""

import argparse
import http.client
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from service.settings import Settings, variable


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="lossd", description="Loss values and gradients over HTTP.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve over HTTP")
    for name in ("host", "port", "workers"):
        field = Settings.model_fields[name]
        serve.add_argument(f"--{name}", help=f"{field.description} ({variable(name)}, {field.default})")
    commands.add_parser("health", help="ask the server on this host whether it is ready; exit 1 if not")
    key = commands.add_parser("key", help="keep the keys of LOSSD_API_KEYS_FILE")
    new = key.add_subparsers(dest="action", required=True).add_parser(
        "new", help="add a key, and print it: the file holds its digest alone"
    )
    new.add_argument("--name", required=True, help="what logs and metrics call it")
    commands.add_parser("openapi", help="print the OpenAPI document")
    docs = commands.add_parser("docs", help="write the losses' pages, and what a README says of the code")
    docs.add_argument("directory", type=Path, help="where the pages go, such as docs/losses")
    docs.add_argument("texts", type=Path, nargs="*", help="texts with marks such as <!-- settings -->")
    chosen = parser.parse_args(arguments)
    if chosen.command == "serve":
        _serve({name: getattr(chosen, name) for name in ("host", "port", "workers")})
    elif chosen.command == "health":
        _health()
    elif chosen.command == "key":
        _print_new_key(chosen.name)
    elif chosen.command == "openapi":
        _print_openapi()
    else:
        _write_docs(chosen.directory, chosen.texts)


def _serve(flags: dict[str, str | None]) -> None:
    """Serve until told to stop. Flags count before their environment variables."""
    settings = _settings(**{name: value for name, value in flags.items() if value is not None})
    # a container's first process would ignore it until the server, whose imports take seconds, handles it
    signal.signal(signal.SIGTERM, _stop)
    _refuse_what_is_not_there(settings)
    # the other commands do without a server
    from service.serving.server import serve

    serve(settings)


def _refuse_what_is_not_there(settings: Settings) -> None:
    """Exit with words where a server would not start, instead of with a stack for each worker."""
    from service.admission import cors, keys
    from service.telemetry import traces

    try:
        cors.parse_origin(settings.cors_origins)
        if settings.api_keys_file is not None:
            keys.load(settings.api_keys_file)
        traces.refuse_missing()
        if settings.device not in ("auto", "cpu"):
            # those are always there, and torch takes its time to import
            from service.engine import device

            device.choose(settings.device)
    except ValueError as error:
        sys.exit(str(error))


def _stop(signum: int, frame: FrameType | None) -> None:
    """Exit as one that was told to: the server, once it runs, first answers what it was asked."""
    sys.exit(0)


def _health() -> None:
    """Exit with 0 if the server that the settings describe is ready: what a container's health check runs."""
    settings = _settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        sys.exit(connection.getresponse().status != 200)
    except OSError as error:
        sys.exit(f"no server at {host}:{settings.port}: {error}")


def _settings(**flags: str) -> Settings:
    """Read the settings; exit with words where they are wrong."""
    try:
        return Settings.model_validate(flags)
    except ValidationError as error:
        faults = [f"{variable(str(e['loc'][0]))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        sys.exit("\n".join(faults))


def _print_new_key(name: str) -> None:
    """Add a key to the file of keys, and print it."""
    from service.admission import keys

    path = _settings().api_keys_file
    if path is None:
        sys.exit("LOSSD_API_KEYS_FILE: Expected the file that the key is added to; it is not set.")
    try:
        print(keys.new(path, name))
    except ValueError as error:
        sys.exit(str(error))


def _print_openapi() -> None:
    """Print the OpenAPI document, formatted and in a stable order."""
    # serving does without what only this needs
    import orjson

    from service.document.openapi import document
    from service.losses import CATALOGUE

    print(orjson.dumps(document(CATALOGUE), option=orjson.OPT_INDENT_2).decode())


def _write_docs(directory: Path, texts: Sequence[Path]) -> None:
    """Write the pages of the losses, and the generated parts of other texts."""
    from service.document.pages import write_pages
    from service.document.readme import fill
    from service.losses import CATALOGUE

    write_pages(CATALOGUE, directory)
    for text in texts:
        fill(CATALOGUE, text)
