"""The OpenAPI document over HTTP, complete or for some losses and metrics."""

from collections.abc import Collection
from functools import cache

import orjson
from fastapi import APIRouter, Request, Response

from service.admission import query
from service.admission.content import Content, cacheable
from service.catalogue.registry import Catalogue, D, MetricCatalogue, Registry
from service.document.openapi import document
from service.problems import Fault, Invalid, pointer, quoted

PATH = "/openapi.json"
MOST_LISTED = 10
"""Most unknown names that a problem lists."""


def document_routes(catalogue: Catalogue, metrics: MetricCatalogue) -> APIRouter:
    """Return the route of the document, which is built once and kept in memory."""
    routes = APIRouter(include_in_schema=False)
    whole = cache(lambda: Content(orjson.dumps(document(catalogue.values(), metrics.values()))))

    # not a coroutine, so it runs in a thread: compression would block the event loop
    @routes.api_route(PATH, methods=["GET", "HEAD"])
    def show_document(request: Request) -> Response:
        asked = query.read_query(request.scope, "losses", "metrics")
        if not asked:
            return cacheable(request, whole())
        found = document(_find(catalogue, asked.get("losses", "")), _find(metrics, asked.get("metrics", "")))
        return cacheable(request, Content(orjson.dumps(found)))

    return routes


def _find(catalogue: Registry[D], names: str) -> Collection[D]:
    """Return the declarations with these comma-separated names, in the order of the catalogue.

    Raises:
        Invalid: a name is unknown.
    """
    asked = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if unknown := [name for name in asked if name not in catalogue][:MOST_LISTED]:
        raise Invalid(*(_unknown(catalogue, name) for name in unknown))
    found = {catalogue[name].name for name in asked}
    return [one for name, one in catalogue.items() if name in found]


def _unknown(catalogue: Registry[D], name: str) -> Fault:
    """Return the fault for an unknown name."""
    expected = f"the name of a {catalogue.word}, such as {', '.join(catalogue.closest(name))}"
    where = pointer("query", catalogue.plural)
    return Fault(where, "unknown", f"Expected {expected}; got {quoted(name)}.")
