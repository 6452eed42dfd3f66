"""The OpenAPI document over HTTP: whole, or with the operations of some losses alone."""

from collections.abc import Collection
from functools import cache

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

from service.admission import query
from service.admission.content import Content, answer
from service.catalogue.registry import AnyLoss, Catalogue
from service.document.openapi import document
from service.problems import Fault, Invalid, pointer, quoted

PATH = "/openapi.json"
MOST_TOLD = 10
"""Unknown names of which a problem tells."""


def router(catalogue: Catalogue) -> APIRouter:
    """Return the routes of the document, which is made once and served from memory, and of its page."""
    routes = APIRouter(include_in_schema=False)
    whole = cache(lambda: Content(orjson.dumps(document(catalogue))))

    # no coroutine: the framework runs it in a thread, where compressing holds up nobody
    @routes.api_route(PATH, methods=["GET", "HEAD"])
    def show_document(request: Request) -> Response:
        names = query.read(request.scope, "losses").get("losses")
        if names is None:
            return answer(request, whole())
        return answer(request, Content(orjson.dumps(document(catalogue, _find(catalogue, names)))))

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def show_page() -> Response:
        return get_swagger_ui_html(openapi_url=PATH, title="lossd")

    return routes


def _find(catalogue: Catalogue, names: str) -> Collection[AnyLoss]:
    """Return the losses of some names, which have commas between them, in the order of the catalogue.

    Raises:
        Invalid: there is no loss of one of the names.
    """
    asked = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if unknown := [name for name in asked if name not in catalogue][:MOST_TOLD]:
        raise Invalid(*(_unknown(catalogue, name) for name in unknown))
    found = {catalogue[name].name for name in asked}
    return [loss for name, loss in catalogue.items() if name in found]


def _unknown(catalogue: Catalogue, name: str) -> Fault:
    """Return the fault of a name that no loss has."""
    expected = f"the name of a loss, such as {', '.join(catalogue.closest(name))}"
    return Fault(pointer("query", "losses"), "unknown", f"Expected {expected}; got {quoted(name)}.")
