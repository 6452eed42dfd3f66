"""The ``lossd`` command: serve, manage keys, and print or write generated files."""

import argparse
import http.client
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from service import VERSION
from service.settings import Settings, variable


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="lossd", description="Loss values and gradients over HTTP.")
    parser.add_argument("--version", action="version", version=f"lossd {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve over HTTP")
    for name in ("host", "port", "workers"):
        field = Settings.model_fields[name]
        serve.add_argument(f"--{name}", help=f"{field.description} ({variable(name)}, {field.default})")
    commands.add_parser("health", help="ask the server on this host whether it is ready; exit 1 if not")
    key = commands.add_parser("key", help="manage the file LOSSD_API_KEYS_FILE")
    actions = key.add_subparsers(dest="action", required=True)
    new = actions.add_parser(
        "new", help="add a key and print it; it is shown only once, the file stores its digest"
    )
    actions.add_parser("list", help="print the names of the keys, and any individual limits")
    revoke = actions.add_parser("revoke", help="remove a key; servers refuse it within a second")
    for action in (new, revoke):
        names = action.add_mutually_exclusive_group(required=True)
        names.add_argument("name", nargs="?", help="name of the key in logs and metrics")
        names.add_argument("--name", dest="named", help="the same")
    commands.add_parser("openapi", help="print the OpenAPI document")
    docs = commands.add_parser(
        "docs", help="write the pages of the losses and metrics and the generated parts of texts"
    )
    docs.add_argument("directory", type=Path, help="where the folders of pages go, such as docs")
    docs.add_argument("texts", type=Path, nargs="*", help="texts with marks such as <!-- settings -->")
    chosen = parser.parse_args(arguments)
    if chosen.command == "serve":
        _serve({name: getattr(chosen, name) for name in ("host", "port", "workers")})
    elif chosen.command == "health":
        _health()
    elif chosen.command == "key":
        _manage_keys(chosen.action, getattr(chosen, "named", None) or getattr(chosen, "name", ""))
    elif chosen.command == "openapi":
        _print_openapi()
    else:
        _write_docs(chosen.directory, chosen.texts)


def _serve(flags: dict[str, str | None]) -> None:
    """Serve until stopped by a signal. Flags take precedence over environment variables."""
    settings = _settings(**{name: value for name, value in flags.items() if value is not None})
    # as PID 1 of a container, the process would ignore SIGTERM until the server installs its handler, seconds later
    signal.signal(signal.SIGTERM, _stop)
    _refuse_what_is_not_there(settings)
    # imported here because the other commands do not need it
    from service.serving.server import serve

    serve(settings)


def _refuse_what_is_not_there(settings: Settings) -> None:
    """Exit with a message if the server could not start, instead of a stack trace from each worker."""
    from service.admission import cors, keys
    from service.telemetry import traces

    try:
        cors.parse_origin(settings.cors_origins)
        if settings.api_keys_file is not None:
            keys.load(settings.api_keys_file)
        traces.refuse_missing()
        if settings.device not in ("auto", "cpu"):
            # "auto" and "cpu" always exist, and importing torch takes time
            from service.engine import device

            device.choose(settings.device)
    except ValueError as error:
        sys.exit(str(error))


def _stop(signum: int, frame: FrameType | None) -> None:
    """Exit on SIGTERM; once the server runs, it drains first."""
    sys.exit(0)


def _health() -> None:
    """Exit with 0 if the configured server is ready, for health checks of containers."""
    settings = _settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        sys.exit(connection.getresponse().status != 200)
    except OSError as error:
        sys.exit(f"no server at {host}:{settings.port}: {error}")


def _settings(**flags: str) -> Settings:
    """Read the settings; exit with a message if they are invalid."""
    try:
        return Settings.model_validate(flags)
    except ValidationError as error:
        faults = [f"{variable(str(e['loc'][0]))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        sys.exit("\n".join(faults))


def _manage_keys(action: str, name: str) -> None:
    """Add a key to the file of keys and print it, remove one, or list them."""
    from service.admission import keys

    path = _settings().api_keys_file
    if path is None:
        sys.exit("LOSSD_API_KEYS_FILE: Expected the path of the file of keys; it is not set.")
    try:
        if action == "new":
            print(keys.new(path, name))
        elif action == "revoke":
            keys.revoke(path, name)
        else:
            for key in keys.load(path):
                print(key.model_dump_json(exclude={"sha256"}, exclude_none=True))
    except ValueError as error:
        sys.exit(str(error))


def _print_openapi() -> None:
    """Print the OpenAPI document, formatted and in a stable order."""
    # imported here because serving does not need it
    import orjson

    from service.document.openapi import document
    from service.losses import CATALOGUE
    from service.metrics import METRICS

    print(orjson.dumps(document(CATALOGUE.values(), METRICS.values()), option=orjson.OPT_INDENT_2).decode())


def _write_docs(directory: Path, texts: Sequence[Path]) -> None:
    """Write the pages of the losses and metrics, and the generated parts of other texts."""
    from service.document.markdown import write_pages
    from service.document.metric_pages import metric_pages
    from service.document.pages import pages
    from service.document.readme import fill
    from service.losses import CATALOGUE
    from service.metrics import METRICS

    write_pages(pages(CATALOGUE), directory / "losses")
    write_pages(metric_pages(METRICS), directory / "metrics")
    for text in texts:
        fill(CATALOGUE, text)
