"""GET /docs: the API reference, a list of all losses and metrics, and Swagger UI for the selected ones.

Swagger UI takes 9 s for the document of all losses on a busy core, and 4 s to open one of its operations; for the
document of a few it takes 1.8 s, nearly all of it for its own code.
"""

from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.admission.content import Content, cacheable
from service.catalogue.declaration import AnyDeclaration
from service.catalogue.registry import Catalogue, D, MetricCatalogue, Registry
from service.problems import NotFound, quoted

STATIC = Path(__file__).parent / "static"
SWAGGER = STATIC / "swagger-ui"
INTEGRITY = {
    "swagger-ui-bundle.js": "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
    "swagger-ui.css": "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
}
"""Hashes of Swagger UI's files, which browsers verify."""
MEDIA = {".js": "text/javascript", ".css": "text/css"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "script-src 'self'",
        # Swagger UI sets inline styles, and its style sheet contains images
        "style-src 'self' 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The content security policy: nothing is loaded from another host."""
FILES = {**{name: SWAGGER / name for name in INTEGRITY}, "reference.js": STATIC / "reference.js"}


def reference_routes(catalogue: Catalogue, metrics: MetricCatalogue) -> APIRouter:
    """Return the routes of the page and its files, which are read once."""
    routes = APIRouter(include_in_schema=False)
    page = cache(lambda: Content(_page(catalogue, metrics).encode(), "text/html"))

    # not coroutines, so they run in threads: reading and compression would block the event loop
    @routes.api_route("/docs", methods=["GET", "HEAD"])
    def show_page(request: Request) -> Response:
        found = cacheable(request, page())
        found.headers["Content-Security-Policy"] = POLICY
        return found

    @routes.api_route("/docs/{name}", methods=["GET", "HEAD"])
    def show_file(request: Request, name: str) -> Response:
        if name not in FILES:
            raise NotFound(f"The page has no file {quoted(name)}; it has {', '.join(FILES)}.")
        return cacheable(request, _file(name))

    return routes


@cache
def _file(name: str) -> Content:
    """Return one of the page's files."""
    path = FILES[name]
    return Content(path.read_bytes(), MEDIA[path.suffix])


def _page(catalogue: Catalogue, metrics: MetricCatalogue) -> str:
    """Return the page, with the operations of all losses and metrics by task."""
    text = (STATIC / "reference.html").read_text(encoding="utf-8")
    for name, integrity in INTEGRITY.items():
        text = text.replace(f"{{{name}}}", integrity)
    return text.replace("{losses}", _sections(catalogue)).replace("{metrics}", _sections(metrics))


def _sections(declared: Registry[D]) -> str:
    """Return the declarations of each task, each list behind a button."""
    tasks = sorted({one.tasks[0] for one in declared.values()})
    return "\n".join(
        _section(declared.plural, task, [one for one in declared.values() if one.tasks[0] == task])
        for task in tasks
    )


def _section(plural: str, task: str, declared: Sequence[AnyDeclaration]) -> str:
    """Return the losses, or metrics, of a task, behind a button."""
    title, place = f"{task.replace('_', ' ')} ({len(declared)})", f"{plural}-{task}"
    items = "\n".join(
        f'<li><a href="docs?{plural}={one.name}"><code>POST /v1/{plural}/{one.name}</code> {escape(one.title)}</a></li>'
        for one in declared
    )
    return (
        f'<section><h2><button aria-expanded="false" aria-controls="{place}">{title}</button></h2>\n'
        f'<ul id="{place}" hidden>\n{items}\n</ul></section>'
    )
